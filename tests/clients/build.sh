#!/usr/bin/env bash
# Builds packages of this project as somebody does who has cloned it: tests/clients/build.sh FOLDER...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for folder in "$@"; do
    # Installs again only if the lock file is newer than the installed packages.
    if [ ! "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ]; then
        npm --prefix "$folder" ci --no-audit --no-fund --loglevel=error
    fi
    npm --prefix "$folder" run --silent build
done
