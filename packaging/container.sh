#!/usr/bin/env bash
# Runs a script as root on a Debian with systemd as its first process: packaging/container.sh FOLDER
#
# The system is this machine's own, under a layer in memory that takes all changes, without any network but its loopback. FOLDER
# is there as /work: `run` in it is the script, `log` becomes what it prints, and `status` its exit code.
set -euo pipefail
folder=$(realpath -- "$1")
[ "$(id -u)" = 0 ] || { echo 'a container with systemd needs root' >&2; exit 1; }
# The mounts are seen by this script alone, and are gone with it.
[ "${ALONE:-}" = yes ] || ALONE=yes exec unshare --mount --propagation private "$0" "$folder"

layers=$(mktemp -d)
mount -t tmpfs -o size=1G tmpfs "$layers"
trap 'umount -R "$layers" 2>/dev/null; rmdir "$layers" "/run/systemd/nspawn/propagate/pub-sub-$$" 2>/dev/null || true' EXIT
mkdir "$layers"/{changes,work,root}
root=$layers/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/changes,workdir=$layers/work" "$root"
# Images for containers have this, so that installing a package starts nothing.
rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/machine-id"
# Without this, the index of all manual pages is not made again for each package.
rm -f "$root/var/lib/man-db/auto-update"
# There is no network to wait for. The timers would start apt-get, which keeps others from it.
for unit in systemd-networkd-wait-online.service timers.target; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
cat >"$root/etc/systemd/system/script.service" <<'unit'
[Unit]
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
WorkingDirectory=/work
StandardOutput=truncate:/work/log
StandardError=inherit
Environment=DEBIAN_FRONTEND=noninteractive HOME=/root
ExecStart=bash -c 'bash ./run; echo $? >status'
TimeoutStartSec=570
unit
rm -f "$folder/status" "$folder/log"
timeout --kill-after=10 600 systemd-nspawn --quiet --directory="$root" --bind="$folder:/work" --boot --register=no --keep-unit \
    --private-network --console=pipe --machine="pub-sub-$$" systemd.unit=script.service </dev/null >"$folder/boot" 2>&1 || true
cat "$folder/log" 2>/dev/null || true
[ -s "$folder/status" ] || { echo 'the container has not run the script:' >&2; tail -20 "$folder/boot" >&2; exit 1; }
exit "$(cat "$folder/status")"
