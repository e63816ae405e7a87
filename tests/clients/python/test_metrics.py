"""The metrics, read by the parsers of Prometheus' own Python library."""

import re
from pathlib import Path

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

TOP = Path(__file__).resolve().parents[3]


def scrape(server, accept=None):
    response = server.session.get(f"{server.origin}/metrics", headers={"Accept": accept} if accept else {})
    assert response.status_code == 200
    if accept:
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        families = openmetrics.text_string_to_metric_families(response.text)
    else:
        families = text_string_to_metric_families(response.text)
    return {family.name: family for family in families}


def documented():
    page = (TOP / "docs" / "operations.md").read_text()
    table = page.split("<!-- metrics -->")[1].split("<!-- /metrics -->")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \|.*?\| (gauge|counter|histogram) \|", table, re.MULTILINE)
    # The library, too, names families of counters without `_total`.
    return {name.removesuffix("_total"): kind for name, kind in rows}


def test_both_forms_are_what_the_library_reads(server):
    name = 'a "b" \\ c'
    for number in range(3):
        published = server.session.post(f"{server.origin}/publish", json={"topic": name, "data": number})
        assert published.status_code == 200
    plain, open_metrics = scrape(server), scrape(server, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert plain.keys() == open_metrics.keys()
    table = documented()
    for family in open_metrics.values():
        assert table[family.name] == family.type, family
    for families in plain, open_metrics:
        counts = {sample.labels["door"]: sample.value for sample in families["pubsub_messages_in"].samples}
        assert counts["rest"] == 3
        (count,) = (s for s in families["pubsub_publish_duration_seconds"].samples if s.name.endswith("_count"))
        assert count.value == 3
