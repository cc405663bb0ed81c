#!/usr/bin/env bash
# moss beside podman: the same work, on this machine, in one run. `make bench`. As root it installs the peers, and measures
# as the ordinary user that the tests use; as an ordinary user it takes what is there. A peer that is missing is "not run".
# Prints for each line: moss, the peer, and the ratio (milliseconds, the median of the runs).
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
runs=${RUNS:-30}
cache=${MOSS_TEST_CACHE:-/var/cache/moss-test}
work=$(mktemp -d /tmp/moss-bench.XXXXXX); chmod 755 "$work"
trap 'kill $registry 2>/dev/null; as bash -c "podman rm -fa; moss container prune -f" >/dev/null 2>&1; chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
registry=

has() { command -v "$1" >/dev/null 2>&1; }
if [ "$(id -u)" = 0 ]; then
  tests/setup.sh
  missing=(); for p in podman:podman slirp4netns:slirp4netns crun:crun hyperfine:hyperfine; do has "${p#*:}" || missing+=("${p%:*}"); done
  if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || echo "some peers cannot be installed"
  fi
  user=mosstest
else
  user=$(id -un)
fi
home=$work/home; mkdir -p "$home/.config/containers" "$work/bin"; cp bin/moss "$work/bin/"
# podman without cgroups, which an ordinary user often has none of; its store and ours start empty.
printf '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n[containers]\ncgroups="disabled"\n' > "$home/.config/containers/containers.conf"
printf '[storage]\ndriver="overlay"\n' > "$home/.config/containers/storage.conf"
[ "$user" = "$(id -un)" ] || chown -R "$user" "$home"
as() {
  if [ "$user" = "$(id -un)" ]; then env HOME="$home" PATH="$work/bin:$PATH" "$@"; return; fi
  env -i HOME="$home" USER="$user" PATH="$work/bin:$PATH" XDG_RUNTIME_DIR="/run/user/$(id -u "$user")" \
    setpriv --reuid="$user" --regid="$user" --init-groups "$@"
}

has docker-registry && has hyperfine || { echo "docker-registry and hyperfine are needed: run as root once, or install them"; exit 1; }
port=$(( 20000 + RANDOM % 20000 ))
printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: "127.0.0.1:%s"}\n' "$work" "$port" > "$work/registry.yml"
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 & registry=$!
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.05; done
printf '[[registry]]\nlocation = "127.0.0.1:%s"\ninsecure = true\n' "$port" > "$home/.config/containers/registries.conf"
go build -o "$work/push" ./bench/push

bb=$work/bb; mkdir -p "$bb"/{bin,etc,tmp,root,dev,proc,sys}; cp /bin/busybox "$bb/bin/"
for a in $(/bin/busybox --list); do [ -e "$bb/bin/$a" ] || ln -s busybox "$bb/bin/$a"; done
printf 'root:x:0:0:root:/root:/bin/sh\n' > "$bb/etc/passwd"; echo 'root:x:0:' > "$bb/etc/group"; touch "$bb/etc/hosts" "$bb/etc/resolv.conf"
tar -C "$bb" --owner=0 --group=0 -cf "$work/bb.tar" .
I=127.0.0.1:$port/library/busybox; D=127.0.0.1:$port/library/debian
"$work/push" "$work/bb.tar" "$I" sh
[ -s "$cache/debian.tar.gz" ] && "$work/push" "$cache/debian.tar.gz" "$D" bash

# median LABEL COMMAND: milliseconds.
median() { as hyperfine -N -i -w 3 -r "$runs" --export-csv "$work/out.csv" "$1" >/dev/null 2>&1; awk -F, 'NR==2{printf "%.1f", $4*1000}' "$work/out.csv"; }
touch "$work/out.csv"; chmod 666 "$work/out.csv"
row() { # what, ours, peer's, unit, the peer
  if [ -z "$3" ]; then printf '%-46s %9s %9s %7s\n' "$1" "$2 $4" "not run" "-"; return; fi
  printf '%-46s %9s %9s %7s  (%s)\n' "$1" "$2 $4" "$3 $4" "$(awk "BEGIN{printf \"%.2f\", $2/$3}")" "$5"
}
echo; uname -rm; printf 'load: '; cat /proc/loadavg
printf '%-46s %9s %9s %7s\n' "" moss peer ratio
as moss pull -q "$I" >/dev/null
peer=; has podman && as podman pull -q "$I" >/dev/null 2>&1 && peer=yes
# Each beside its peer, one after the other, so that both see the same machine.
a=$(median "moss run --rm --network none $I true"); b=${peer:+$(median "podman run --rm --net=none $I true")}
row "run --rm --network none busybox true, warm" "$a" "$b" ms "podman --net=none"
a=$(median "moss run --rm $I true"); b=; [ "$peer" ] && has slirp4netns && b=$(median "podman run --rm --net=slirp4netns $I true")
row "run --rm busybox true, warm, default network" "$a" "$b" ms "podman --net=slirp4netns"

if [ -s "$cache/debian.tar.gz" ]; then
  once() { local s e; s=$(date +%s%N); as "$@" >/dev/null 2>&1; e=$(date +%s%N); echo $(( (e - s) / 1000 )); }
  ours=(); theirs=()
  for _ in 1 2 3; do
    as moss rmi -f "$D" >/dev/null 2>&1 || true; ours+=("$(once moss pull -q "$D")")
    if [ "$peer" ]; then as podman rmi -f "$D" >/dev/null 2>&1 || true; theirs+=("$(once podman pull -q "$D")"); fi
  done
  best() { printf '%s\n' "$@" | sort -n | head -1 | awk '{printf "%.0f", $1/1000}'; }
  row "pull of debian, $(( $(stat -c %s "$cache/debian.tar.gz") >> 20 )) MB, one layer, best of 3" "$(best "${ours[@]}")" "${peer:+$(best "${theirs[@]}")}" ms podman
  inodes() { as find "$1" 2>/dev/null | wc -l; }
  as moss rmi -f "$I" >/dev/null 2>&1 || true
  n=$(inodes "$home/.local/share/moss"); m=; [ "$peer" ] && { as podman rmi -f "$I" >/dev/null 2>&1 || true; m=$(as podman unshare find "$home/.local/share/containers/storage" 2>/dev/null | wc -l); }
  row "inodes of the store with that image" "$n" "$m" "" podman
fi
