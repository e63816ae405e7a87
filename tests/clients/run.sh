#!/usr/bin/env bash
# Tests stock clients in Node and Python against pub-sub: sets up what they need, runs all tests, prints a summary.
#
#   tests/clients/run.sh              PUB_SUB_BIN=FILE names the binary; without it `cargo build` makes one.
#   SEED=123 tests/clients/run.sh     cuts connections after the same bytes as the run that printed this seed.
#
# Exits with 0 only if every part was set up, ran, and passed.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
started=$SECONDS

fail() {
    printf 'tests/clients: %s\n' "$1" >&2
    exit 1
}

# Installs Debian packages when a tool is missing: install TOOL_DESCRIPTION PACKAGE...
install() {
    local what=$1
    shift
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "$what is missing and cannot be installed here (not root, or no apt-get): install $*"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"; } >/dev/null 2>&1 \
        || fail "$what is missing and apt-get could not install $*"
}

node_major() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

command -v node >/dev/null || install 'Node.js' nodejs
command -v npm >/dev/null || install 'npm' npm
[ "$(node_major)" -ge 20 ] || fail "Node.js $(node --version) is too old: the clients need 20 or newer"
command -v python3 >/dev/null || install 'Python' python3
command -v curl >/dev/null || install 'curl' curl
command -v haproxy >/dev/null || install 'HAProxy' haproxy
command -v promtool >/dev/null || install 'promtool, which checks the alert rules' prometheus
python3 -c 'import ensurepip, venv' 2>/dev/null || install 'the venv module of Python' python3-venv

if [ -n "${PUB_SUB_BIN:-}" ]; then
    PUB_SUB_BIN=$(realpath -- "$PUB_SUB_BIN") || fail "PUB_SUB_BIN does not name a file"
    [ -x "$PUB_SUB_BIN" ] || fail "PUB_SUB_BIN names $PUB_SUB_BIN, which cannot be executed"
else
    (cd "$top" && cargo build --locked) || fail 'cargo build failed, and PUB_SUB_BIN names no binary'
    PUB_SUB_BIN=${CARGO_TARGET_DIR:-$top/target}/debug/pub-sub
fi
export PUB_SUB_BIN

# Installs again only if the pinned versions have changed.
pinned=$(cat "$here/node/package-lock.json" "$here/node/package.json" | sha256sum)
if [ "$(cat "$here/node/node_modules/.pinned" 2>/dev/null)" != "$pinned" ]; then
    (cd "$here/node" && npm ci --no-audit --no-fund --loglevel=error) || fail 'npm ci in tests/clients/node failed: the Node clients cannot be installed'
    printf '%s\n' "$pinned" > "$here/node/node_modules/.pinned"
fi
"$here/build.sh" clients/typescript || fail 'the package in clients/typescript could not be built'
venv=$top/target/clients-venv
pinned=$(cat "$here/python/requirements.txt" <(python3 --version) | sha256sum)
if [ "$(cat "$venv/.pinned" 2>/dev/null)" != "$pinned" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" || fail 'the virtual environment target/clients-venv could not be made'
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$here/python/requirements.txt" \
        || fail 'pip install -r tests/clients/python/requirements.txt failed: the Python clients cannot be installed'
    printf '%s\n' "$pinned" > "$venv/.pinned"
fi
ready=$SECONDS

# Prometheus' own tool reads the alert rules.
promtool check rules "$top/operations/alerts.yml"
rules_status=$?

# The time limits are for a client that hangs; a run takes a fraction of them. Python's tests run after Node's, so that
# the two do not share the cores. The files of Node's tests run in parallel. A client that goes on connecting after its last test,
# to a server that is gone, must not keep its file from ending.
(cd "$here/node" && timeout --kill-after=10 540 \
    node --test --test-force-exit --test-concurrency=2 --test-reporter=spec test/*.test.mjs)
node_status=$?
(cd "$here/python" && PYTHONDONTWRITEBYTECODE=1 timeout --kill-after=10 300 "$venv/bin/python" -m pytest -q)
python_status=$?

verdict() { [ "$1" = 0 ] && echo passed || echo "FAILED (exit $1)"; }
printf '\ntests/clients: Node clients %s, Python clients %s, alert rules %s; %d s of set-up, %d s of tests, %s\n' \
    "$(verdict $node_status)" "$(verdict $python_status)" "$(verdict $rules_status)" $((ready - started)) $((SECONDS - ready)) "$PUB_SUB_BIN"
[ "$node_status" = 0 ] && [ "$python_status" = 0 ] && [ "$rules_status" = 0 ]
