#!/usr/bin/env bash
# Puts what belongs to an installation into a folder, laid out as below /usr: packaging/stage.sh BINARY FOLDER
#
# The manual pages and the completions are the binary's own. The release archive is this folder; the Debian package takes
# its files from it.
set -euo pipefail
binary=$(realpath -- "$1")
folder=$(realpath -m -- "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rm -rf "$folder"
mkdir -p "$folder"/share/{bash-completion/completions,fish/vendor_completions.d,zsh/site-functions}
install -D -m 755 "$binary" "$folder/bin/pub-sub"
"$binary" man "$folder/share/man/man1" >/dev/null
gzip -9n "$folder"/share/man/man1/*
"$binary" completions bash >"$folder/share/bash-completion/completions/pub-sub"
"$binary" completions fish >"$folder/share/fish/vendor_completions.d/pub-sub.fish"
"$binary" completions zsh >"$folder/share/zsh/site-functions/_pub-sub"
install -D -m 644 packaging/systemd/pub-sub.service "$folder/lib/systemd/system/pub-sub.service"
install -D -m 644 packaging/systemd/pub-sub.sysusers "$folder/lib/sysusers.d/pub-sub.conf"
install -D -m 644 -t "$folder/etc/pub-sub" packaging/pub-sub.toml packaging/environment
install -m 644 LICENSE README.md CHANGELOG.md "$folder"
