#!/bin/sh
# Debian packages that the lab of real devices needs. Quick when all of them are there.
# Needs root; without it nothing is done and the lab tests say why they are skipped.
set -eu

if [ "$(id -u)" != 0 ]; then
    echo "lab: not root, so the tests on real adbd and sshd will be skipped" >&2
    exit 0
fi
if ! command -v apt-get > /dev/null; then
    echo "lab: this isn't Debian or Ubuntu; install adb, sshd, ip, iptables, qemu-aarch64 by hand" >&2
    exit 0
fi

missing=
need() { # PROGRAM PACKAGE
    command -v "$1" > /dev/null || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need adb adb
need ssh openssh-client
need sshd openssh-server
need ip iproute2
need iptables iptables
need unshare util-linux
need dpkg-deb dpkg
need g++ g++
need patchelf patchelf
need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
need qemu-aarch64-static qemu-user-static
# Only where the system has this version; without it the tests that compile with clang say so.
if apt-cache show clang-19 libc++-19-dev > /dev/null 2>&1; then
    need clang++-19 clang-19
    [ -e /usr/lib/llvm-19/lib/libc++.a ] || missing="$missing libc++-19-dev libc++abi-19-dev"
fi
need chromium chromium
need npm npm
need fish fish
need tcsh tcsh
need zsh zsh
need tmux tmux
need systemctl systemd
need busybox busybox
need dropbear dropbear-bin

[ -n "$missing" ] || exit 0
echo "lab: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# A policy that forbids starting services keeps a fresh sshd from listening on this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing > /dev/null 2>&1 || {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends $missing > /dev/null
}
