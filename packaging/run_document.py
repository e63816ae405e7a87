"""Runs the examples of a document from top to bottom: python3 run_document.py FILE FOLDER

A block of `sh` runs by bash, in FOLDER. If the next block is `text` or `json`, it is what the commands print. What differs from run
to run (cursors, ids, times) is compared by its shape. Variables that a block exports are there in the later ones.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

SECONDS = 120
VARYING = [
    (r"\b[0-9a-f]{16}-[0-9a-f]{2,}\b", "CURSOR"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
]


def blocks(text: str):
    """The code blocks, each with its language and the number of its first line."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        yield match[1], match[2], text.count("\n", 0, match.start(2)) + 1


def shape(language: str, text: str) -> str:
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return json.dumps(json.loads(text)) if language == "json" else text.strip()


def main(document: Path, folder: Path) -> None:
    found = list(blocks(document.read_text()))
    environment, count = folder / ".environment", 0
    environment.write_text("")
    for (language, script, line), following in zip(found, found[1:] + [("", "", 0)]):
        if language != "sh":
            continue
        count += 1
        whole = f"set -euo pipefail; . {environment}\n{script}\nexport -p >{environment}\n"
        at = f"{document.name}:{line}"
        # Into a file, because a server that is left running would keep a pipe open.
        with open(folder / ".output", "w+") as output:
            status = subprocess.run(["bash", "-c", whole], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=sys.stderr, timeout=SECONDS).returncode
            output.seek(0)
            printed = output.read()
        if status != 0:
            sys.exit(f"{at} ended with {status}:\n{script}\n{printed}")
        if following[0] in ("text", "json"):
            try:
                same = shape(following[0], following[1]) == shape(following[0], printed)
            except ValueError:
                same = False
            if not same:
                sys.exit(f"{at} should print\n{following[1]}\nand prints\n{printed}")
    if count == 0:
        sys.exit(f"{document.name} has no examples")
    print(f"{document.name}: {count} examples run as printed")


main(Path(sys.argv[1]), Path(sys.argv[2]))
