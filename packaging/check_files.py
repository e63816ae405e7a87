"""Checks the files for Kubernetes and Compose: python3 packaging/check_files.py BINARY

They are held against the schemas of Kubernetes and of Compose. Each variable has to be a setting of BINARY, and each address of a
probe one that it answers.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import compose_spec
import kubernetes_validate
import yaml

TOP = Path(__file__).resolve().parent.parent
BINARY = str(Path(sys.argv[1]).resolve())
# The oldest one that is widely used, and the newest that the checker knows.
KUBERNETES = ["1.29", kubernetes_validate.latest_version()]


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(what)


def settings(environment: dict) -> dict:
    """What BINARY makes of these variables. An unknown value ends it; a variable that is no setting is not in the result."""
    run = subprocess.run([BINARY, "config"], env={"PATH": os.environ["PATH"], **environment}, cwd="/", capture_output=True, text=True)
    check(run.returncode == 0, f"{environment}: {run.stderr}")
    return dict(line.split(" = ", 1) for line in run.stdout.splitlines() if " = " in line)


def seconds(text: str) -> int:
    return int(re.fullmatch(r'"?(\d+)s"?', text)[1])


def check_environment(name: str, environment: dict, grace: int) -> None:
    known = settings(environment)
    for variable in environment:
        check(variable.lower().removesuffix("_file") in known, f"{name}: {variable} is no setting")
    check(grace > seconds(known["drain_delay"]) + seconds(known["drain_timeout"]), f"{name}: it is killed before it has drained")


def probe(paths: set) -> None:
    """Asks a running server at each of these paths."""
    server = subprocess.Popen([BINARY], env={"HOST": "127.0.0.1", "PORT": "0", "LOG": "info"}, cwd="/", stderr=subprocess.PIPE, text=True)
    try:
        port = next(found[1] for line in server.stderr if (found := re.search(r"listening addr=127\.0\.0\.1:(\d+)", line)))
        for path in paths:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                check(response.status == 200, f"{path}: {response.status}")
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def resources(folder: Path) -> list:
    """What Kustomize makes of a folder, which has nothing but resources. kubectl of Debian 12 is too old to do it."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    check(kustomization.keys() == {"apiVersion", "kind", "resources"}, f"{folder}: more than resources")
    found = []
    for name in kustomization["resources"]:
        path = folder / name
        found += resources(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    return found


def kubernetes(name: str, secret: Path) -> set:
    """Checks a Kustomize base, and returns the paths that its probes ask."""
    folder = TOP / "packaging/kubernetes" / name
    documents = {document["kind"]: document for document in resources(folder)}
    if shutil.which("kubectl"):
        text = subprocess.run(["kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True).stdout
        check({document["kind"]: document for document in yaml.safe_load_all(text)} == documents, f"{name}: kubectl reads something else")
    for version in KUBERNETES:
        for document in documents.values():
            kubernetes_validate.validate(document, version, strict=True)
    workload = documents.get("StatefulSet") or documents["Deployment"]
    template = workload["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    selectors = [workload["spec"]["selector"]["matchLabels"], documents["Service"]["spec"]["selector"]]
    if "PodDisruptionBudget" in documents:
        selectors.append(documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    check(all(selector.items() <= labels.items() for selector in selectors), f"{name}: a selector does not fit")
    (container,) = pod["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    check("API_KEY_FILE" in environment, f"{name}: it is open")
    check_environment(name, {**environment, "API_KEY_FILE": str(secret)}, pod["terminationGracePeriodSeconds"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    check(environment["API_KEY_FILE"] == f"{mounts['secrets']}/api_key", f"{name}: the key is not where it is mounted")
    check(environment.get("DATA_DIR", "") == mounts.get("data", ""), f"{name}: DATA_DIR is no volume")
    allowed = container["securityContext"]
    check(allowed["readOnlyRootFilesystem"] and not allowed["allowPrivilegeEscalation"] and allowed["capabilities"] == {"drop": ["ALL"]}, f"{name}: it may do too much")
    check(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532, f"{name}: the user is not the image's")
    probes = [container["readinessProbe"]["httpGet"], container["livenessProbe"]["httpGet"]]
    check([found["path"] for found in probes] == ["/health/ready", "/health/live"], f"{name}: wrong probes")
    ports = {port["name"] for port in container["ports"]}
    wanted = {found["port"] for found in probes} | {port["targetPort"] for port in documents["Service"]["spec"]["ports"]}
    check(wanted <= ports, f"{name}: no port is called {wanted}")
    return {found["path"] for found in probes}


def merged(one, other):
    """What Compose makes of two files: mappings are joined, lists one after the other, and of two values the later counts."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(one[key], other[key]) if key in one and key in other else {**one, **other}[key] for key in {**one, **other}}
    return one + other if isinstance(one, list) and isinstance(other, list) else other


def compose(*names: str) -> None:
    whole = {}
    for name in names:
        whole = merged(whole, yaml.safe_load((TOP / name).read_text()))
    parsed = compose_spec.PyCompose.from_json(json.dumps(whole))
    parsed.validate()
    parsed.to_spec()
    for service, content in whole["services"].items():
        for volume in content.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                check((TOP / source).is_file(), f"{names[-1]}: {service} mounts {source}, which does not exist")
            else:
                check(source in whole["volumes"], f"{names[-1]}: {service} has a volume {source}")
        for other in content.get("depends_on", {}):
            check("healthcheck" in whole["services"][other], f"{names[-1]}: {other} has no health check, and {service} waits for it")
    targets = yaml.safe_load((TOP / "deploy/prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]["targets"]
    check(sorted(target.split(":")[0] for target in targets) == sorted(name for name in whole["services"] if name.startswith("pub-sub")), "Prometheus does not ask every instance")


def main() -> None:
    secret = TOP / "target/packaging/api_key"
    secret.write_text("a key for this check\n")
    paths = kubernetes("disk", secret) | kubernetes("nats", secret) | {"/metrics"}
    probe(paths)
    compose("compose.yaml")
    for more in ["deploy/compose.access.yaml", "deploy/compose.metrics.yaml"]:
        compose("compose.yaml", more)
    print(f"Kubernetes {' and '.join(KUBERNETES)} and Compose: the files fit their schemas and the server")


main()
