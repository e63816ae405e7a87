#!/usr/bin/env bash
# Checks everything in packaging/, and the files for Compose: PUB_SUB_BIN=FILE packaging/check.sh, as root. `make packaging` does so.
#
# It installs what it needs: lintian and systemd's container from Debian, and checkers from Python's package index. CARGO_DEB names
# cargo-deb.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$top/target/packaging
binary=$(realpath -- "$PUB_SUB_BIN")
cargo_deb=$(realpath -- "${CARGO_DEB:-$top/target/tools/bin/cargo-deb}")
cd "$top"

say() { printf 'packaging: %s\n' "$1"; }

missing=()
command -v lintian >/dev/null || missing+=(lintian)
command -v man >/dev/null || missing+=(man-db)
command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
command -v curl >/dev/null || missing+=(curl)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1 \
        || { say "needs ${missing[*]}, which apt-get could not install" >&2; exit 1; }
fi
pinned=$(sha256sum packaging/requirements.txt)
if [ "$(cat "$work/venv/.pinned" 2>/dev/null)" != "$pinned" ]; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install -q --disable-pip-version-check -r packaging/requirements.txt
    printf '%s\n' "$pinned" >"$work/venv/.pinned"
fi

# A debug build is smaller and faster to pack without its symbols.
mkdir -p "$work"
strip -o "$work/pub-sub" "$binary"

"$work/venv/bin/python" packaging/check_files.py "$work/pub-sub"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
rm -rf "$work/container" "$work"/*.deb "$work"/*.tar.gz
make --no-print-directory dist PUB_SUB_BIN="$work/pub-sub" DIST="$work"
listed=$(tar -tzf "$work"/pub-sub-"$version"-*.tar.gz)
for name in LICENSE README.md CHANGELOG.md bin/pub-sub share/man/man1/pub-sub.1.gz share/man/man1/pub-sub-sub.1.gz \
    share/bash-completion/completions/pub-sub share/zsh/site-functions/_pub-sub share/fish/vendor_completions.d/pub-sub.fish \
    lib/systemd/system/pub-sub.service etc/pub-sub/pub-sub.toml; do
    grep -q "^pub-sub-$version-[^/]*/$name\$" <<<"$listed" || { say "the archive has no $name" >&2; exit 1; }
done
bash -n target/stage/share/bash-completion/completions/pub-sub
say "the archive has what it should"

# These tags are about packages in Debian itself. The maintainers have no address there, and this one can never be anybody's.
make --no-print-directory deb PUB_SUB_BIN="$work/pub-sub" CARGO_DEB="$cargo_deb" DEB="$work" DEB_FLAGS=--fast
grep -q "^pub-sub ($version-" packaging/debian/changelog || { say "packaging/debian/changelog has another version than $version" >&2; exit 1; }
lintian --no-cfg --allow-root --fail-on error,warning \
    --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog \
    --suppress-tags description-synopsis-starts-with-article,initial-upload-closes-no-bugs "$work"/*.deb
say "lintian accepts the package"

# The commands of docs/install.md, on a Debian with systemd.
mkdir -p "$work/container"
cp "$work"/*.deb "$work"/*.tar.gz docs/install.md packaging/run_document.py "$work/container"
cat >"$work/container/run" <<'script'
set -e
mkdir /tmp/folder
cp *.deb *.tar.gz /tmp/folder
failed() { systemctl status --no-pager pub-sub || true; journalctl --no-pager -u pub-sub | tail -30; exit 1; }
apt-get install -qq ./*.deb >/dev/null
systemd-analyze verify pub-sub.service 2>&1 | tee verified
# It succeeds with keys that it does not know.
if grep -q pub-sub verified; then exit 1; fi
# The program is on a network, which alone counts for more than half of this.
systemd-analyze security --threshold=15 pub-sub.service >security || { cat security; exit 1; }
tail -1 security
man -w pub-sub-sub >/dev/null
apt-get purge -qq pub-sub >/dev/null
python3 run_document.py install.md /tmp/folder || failed
script
packaging/container.sh "$work/container"
say "all is well"
