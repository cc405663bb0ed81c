#!/usr/bin/env bash
# Prepares a Debian machine for the tests, as root; safe to repeat, and everything that is there already is left as it is.
# What cannot be had is told and left out: the tests that need it are skipped, and say so.
set -u
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
cache=${MOSS_TEST_CACHE:-/var/cache/moss-test}

note() { printf 'set-up: %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }

# Packages, each for the sake of a program or a file.
missing=()
want() { [ -e "$2" ] || has "$2" || missing+=("$1"); }
want uidmap newuidmap
want docker-registry docker-registry
want busybox-static /bin/busybox
want debootstrap debootstrap
want erofs-utils fsck.erofs
want gcc gcc                       # the race detector links with it
want libc6-dev /usr/include/stdlib.h
want iproute2 ip
if [ ${#missing[@]} -gt 0 ] && has apt-get; then
  note "installing ${missing[*]}"
  apt-get update -qq || note "apt-get update failed; trying with what is known"
  for p in "${missing[@]}"; do
    apt-get install -y -qq --no-install-recommends "$p" >/dev/null 2>&1 || note "$p cannot be installed: tests that need it are skipped"
  done
fi
# The Debian package starts its registry where there is an init; the tests run their own, on other ports.

# Devices that every user may open, as on a machine with udev.
for d in /dev/fuse /dev/net/tun; do
  [ -e "$d" ] || { [ "$d" = /dev/net/tun ] && mkdir -p /dev/net && mknod /dev/net/tun c 10 200; [ "$d" = /dev/fuse ] && mknod /dev/fuse c 10 229; } 2>/dev/null
  [ -e "$d" ] && chmod 0666 "$d" || note "$d is not there"
done

# Two users: one with a range of subordinate ids, one without.
for u in mosstest mosstest2; do
  id "$u" >/dev/null 2>&1 || useradd -m -s /bin/bash "$u" || note "user $u cannot be made"
done
for f in /etc/subuid /etc/subgid; do
  touch "$f"
  sed -i '/^mosstest2:/d' "$f"
  grep -q '^mosstest:' "$f" ||
    echo "mosstest:$(awk -F: 'BEGIN { n = 100000 } $2 + $3 > n { n = $2 + $3 } END { print n }' "$f"):65536" >> "$f"
done
for u in mosstest mosstest2; do
  r=/run/user/$(id -u "$u")
  mkdir -p "$r" && chown "$u:" "$r" && chmod 700 "$r"
done

# A Debian root file system, and a few of its packages as an apt repository in a folder. debian.tar.gz is the image's
# one layer, made once.
mkdir -p "$cache" && chmod 755 "$cache"
codename=$(. /etc/os-release 2>/dev/null; echo "${VERSION_CODENAME:-bookworm}")
if [ ! -s "$cache/debian.tar.gz" ] && has debootstrap; then
  note "making a Debian $codename root file system (once)"
  d=$(mktemp -d "$cache/debootstrap.XXXXXX")
  if debootstrap --variant=minbase "$codename" "$d/root" >"$d/log" 2>&1; then
    rm -f "$d/root/var/cache/apt/archives/"*.deb
    tar -C "$d/root" --numeric-owner --xattrs -cf - . | gzip -6 > "$d/tar.gz" && mv "$d/tar.gz" "$cache/debian.tar.gz"
  else
    note "debootstrap failed: the stories with a Debian image are skipped; its last words:"; tail -3 "$d/log"
  fi
  rm -rf --one-file-system "$d"
fi
if [ ! -s "$cache/apt/Packages" ] && has apt-get; then
  note "fetching packages for an apt repository (once)"
  rm -rf "$cache/apt"; mkdir -p "$cache/apt"; chmod 777 "$cache/apt"
  # hello: nothing special. uuid-runtime: makes a user, a group and a setgid folder when it is configured.
  if (cd "$cache/apt" && apt-get download -qq hello uuid-runtime >/dev/null 2>&1); then
    for deb in "$cache"/apt/*.deb; do
      dpkg-deb -f "$deb"
      printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$(basename "$deb")" "$(stat -c %s "$deb")" "$(sha256sum < "$deb" | cut -d' ' -f1)"
    done > "$cache/apt/Packages"
  else
    note "apt-get download failed: the story of apt-get install is skipped"
  fi
  chmod 755 "$cache/apt"
fi
exit 0
