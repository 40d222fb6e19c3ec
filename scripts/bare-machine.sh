#!/usr/bin/env bash
# Shows that nothing but make and git is needed: runs make's targets in a bare Debian with a fresh clone of this
# repository, as root, and tells how long each took.
#
#   scripts/bare-machine.sh FOLDER TARGET...        e.g. /var/tmp/bare demo check
#
# RELEASE names Debian's release (default: bookworm, the oldest that will do).
# FOLDER receives the system (debootstrap's minbase variant) the first time and keeps it; the clone in it and its caches
# start anew each time. Of this machine it gets what is needed to reach the network: name servers, proxy variables,
# certificates of its own, and apt's and pip's settings for downloads.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: scripts/bare-machine.sh FOLDER TARGET..." >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "error: debootstrap and chroot need root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "error: install debootstrap" >&2; exit 1; }
repository=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift

if [ ! -e "$folder/.complete" ]; then
    rm -rf "$folder"
    debootstrap --variant=minbase --include=make,git,ca-certificates "${RELEASE:-bookworm}" "$folder"
    touch "$folder/.complete"
fi
folder=$(cd "$folder" && pwd)

cp -L /etc/resolv.conf "$folder/etc/resolv.conf"
for file in $(grep -l '^Acquire' /etc/apt/apt.conf /etc/apt/apt.conf.d/* 2>/dev/null || true); do
    cp "$file" "$folder/etc/apt/apt.conf.d/"
done
for file in /usr/local/share/ca-certificates/*.crt /etc/pip.conf; do
    if [ -f "$file" ]; then cp "$file" "$folder$file"; fi
done
environment=(HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
while read -r variable; do
    environment+=("$variable")
done < <(env | grep -iE '^(https?_proxy|no_proxy|all_proxy|pip_(index_url|extra_index_url|cert|trusted_host))=' || true)

trap 'umount -l "$folder/proc" "$folder/sys" "$folder/dev" 2>/dev/null || true' EXIT
mount -t proc proc "$folder/proc"
mount --rbind --make-rslave /sys "$folder/sys"
mount --rbind --make-rslave /dev "$folder/dev"
inside() { env -i "${environment[@]}" chroot "$folder" "$@"; }

inside update-ca-certificates >/dev/null 2>&1
rm -rf "$folder/root"/{hypura,.cache}
git clone --quiet "$repository" "$folder/root/hypura"
echo "on $(inside nproc) processors, commit $(git -C "$folder/root/hypura" rev-parse --short HEAD)"
for target; do
    start=$(date +%s)
    status=0
    inside make -C /root/hypura "$target" || status=$?
    echo "make $target: $(($(date +%s) - start)) s, exit status $status"
    [ $status -eq 0 ] || exit $status
done
