#!/usr/bin/env bash
# Builds the Debian package, installs it into a new Debian system in a folder of its own, with the packages that it
# names and a compiler, and builds a project there that finds it. With --first-command the system then gets a copy of
# the repository instead, and README's first command is run and timed as a newcomer would run it.
# Needs root, debootstrap, a network, 2 GB in TMPDIR and a few minutes. ATMANRL_DEBIAN names the release (bookworm).
#   bash tests/packages/debian_chroot.sh [--first-command]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
release=${ATMANRL_DEBIAN:-bookworm}
mirror=${ATMANRL_DEBIAN_MIRROR:-http://deb.debian.org/debian}
[ "$(id -u)" = 0 ] || { echo "debian_chroot: only root can enter another system" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "debian_chroot: no debootstrap (apt-get install debootstrap)" >&2; exit 2; }

root=$(mktemp -d)
chmod 755 "$root"
leave() {
  for inner in dev/shm dev/pts dev proc; do umount "$root/$inner" 2>/dev/null || true; done
  rm -rf --one-file-system "$root"
}
trap leave EXIT
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }

debootstrap --variant=minbase "$release" "$root" "$mirror" >"$root.log" 2>&1 ||
  { tail -n 20 "$root.log" >&2; echo "debian_chroot: debootstrap failed" >&2; exit 1; }
rm -f "$root.log"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t devpts devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"

if [ "${1:-}" = --first-command ]; then
  inside apt-get -q update >/dev/null
  inside apt-get -q install -y --no-install-recommends git ca-certificates >/dev/null  # what brought the copy there
  mkdir "$root/srv/atmanrl"
  git archive HEAD | tar -x -C "$root/srv/atmanrl"
  begin=$(date +%s)
  inside bash -c 'cd /srv/atmanrl && bash examples/run.sh'
  echo "debian_chroot: README's first command took $(($(date +%s) - begin)) s on $release," \
       "$(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
  exit
fi

cmake --preset package >/dev/null
cmake --build --preset package >/dev/null
cp build/package/libatmanrl-dev_*_all.deb "$root/srv/"
cp -r tests/consumer_find_package "$root/srv/consumer"
inside apt-get -q update >/dev/null
inside sh -c 'apt-get -q install -y --no-install-recommends /srv/libatmanrl-dev_*_all.deb g++ cmake make' >/dev/null
inside cmake -S /srv/consumer -B /srv/consumer/build -Datmanrl_ROOT=/usr -DCMAKE_CXX_FLAGS=-O0
inside cmake --build /srv/consumer/build
inside /srv/consumer/build/consumer | tee "$root/srv/says"
grep -q "consumer: 3 of 3 checks passed" "$root/srv/says"
inside sh -c 'apt-get -q remove -y libatmanrl-dev >/dev/null && [ ! -e /usr/include/atmanrl ]' ||
  { echo "debian_chroot: something is left of the removed package" >&2; exit 1; }
echo "debian_chroot: installed, found, compiled and removed on $release"
