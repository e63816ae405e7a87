#!/usr/bin/env bash
# Tests the pages, the TypeScript package and the chat example in headless Chromium, against PUB_SUB_BIN (or the newer of
# target/release and target/debug). Installs what it needs: Debian's chromium, and playwright-core from npm to control it.
set -euo pipefail
cd "$(dirname "$0")"

if [ ! -x "${CHROMIUM:=/usr/bin/chromium}" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$0: there is no $CHROMIUM: install Debian's package chromium, or name another one with CHROMIUM=" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
export CHROMIUM

# Installs again only if the lock file is newer than the installed packages.
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  npm ci --no-audit --no-fund
fi
../build.sh clients/typescript examples/chat
exec npm test
