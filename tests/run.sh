#!/usr/bin/env bash
# All tests: `make test`. As root it prepares the machine first (tests/setup.sh) and runs most of the tests as the
# ordinary users that it made; as an ordinary user it runs what needs no root, and says what it left out.
# The last line is the sum: N passed, N failed, N skipped.
set -u
cd "$(dirname "$0")/.."
top=$PWD
export LC_ALL=C.UTF-8 GOFLAGS="${GOFLAGS:-} -buildvcs=false"
root=$([ "$(id -u)" = 0 ] && echo yes)
work=$(mktemp -d "${TMPDIR:-/tmp}/moss-test.XXXXXX") && chmod 755 "$work" || exit 1
results=$work/results; : > "$results"
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

headline() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

# step NAME COMMAND...: one thing that passes or fails as a whole.
step() {
  local name=$1; shift
  if "$@" > "$work/out" 2>&1; then echo "pass $name" >> "$results"; echo "ok: $name"
  else echo "fail $name" >> "$results"; echo "--- FAIL: $name"; cat "$work/out"; fi
}
leave_out() { echo "skip $1" >> "$results"; echo "--- skip: $1: $2"; }

if [ "$root" ]; then
  headline "set-up"
  export MOSS_TEST_CACHE=${MOSS_TEST_CACHE:-/var/cache/moss-test}
  tests/setup.sh
elif [ -z "${MOSS_TEST_CACHE:-}" ]; then
  export MOSS_TEST_CACHE=/var/cache/moss-test
fi

# as USER COMMAND...: with the environment of a fresh login. Without root there is only the caller.
as() {
  local u=$1; shift
  if [ -z "$root" ]; then "$@"; return; fi
  local h=/root; [ "$u" = root ] || h=$(getent passwd "$u" | cut -d: -f6)
  env -i HOME="$h" USER="$u" LOGNAME="$u" PATH="$PATH" LC_ALL="$LC_ALL" XDG_RUNTIME_DIR="/run/user/$(id -u "$u")" \
    MOSS_BIN="$work/bin/moss" MOSS_TEST_CACHE="$MOSS_TEST_CACHE" \
    setpriv --reuid="$u" --regid="$u" --init-groups "$@"
}
ordinary=$(if [ "$root" ]; then echo mosstest; else id -un; fi)
[ "$root" ] && { mkdir -p /run/user/0; chmod 700 /run/user/0; }

headline "vet, gofmt, build"
unformatted() { local f; f=$(gofmt -l bench cmd fuseoverlay image lifecycle netns tests userns); echo "$f"; [ -z "$f" ]; }
step "gofmt" unformatted
step "go vet" go vet ./...
step "build" make build
mkdir -p "$work/bin" "$work/src"
cp bin/moss "$work/bin/moss" && chmod 755 "$work/bin/moss"
go build -o "$work/bin/report" ./tests/report || exit 1
# The ordinary users may not be able to read this checkout: they get a copy.
tar --exclude=./.git --exclude=./bin -cf - . | tar -C "$work/src" -xf - && chmod -R a+rX "$work/src"

# compile NAME PACKAGE [FLAGS...] makes a test binary.
compile() { local name=$1 pkg=$2; shift 2; go test -c "$@" -o "$work/bin/$name.test" "$pkg"; }
# run_as USER LABEL NAME PACKAGE [FLAGS...] runs it in its folder.
run_as() {
  local u=$1 label=$2 name=$3 pkg=$4; shift 4
  (cd "$work/src/$pkg" && as "$u" "$work/bin/$name.test" -test.v=test2json -test.timeout=10m "$@" 2>&1) |
    go tool test2json -t -p "$pkg" | "$work/bin/report" "$label" "$results"
}

race=
if [ "$(go env GOARCH)" = amd64 ] || [ "$(go env GOARCH)" = arm64 ]; then
  if command -v gcc >/dev/null && echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1; then race=-race; fi
fi
[ "$race" ] || leave_out "race detector" "there is no C compiler, and it needs one; the tests run without it"

headline "unit tests as $ordinary"
packages=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | sed "s|^$(go list -m)/||" | grep -v '^tests$')
for p in $packages; do
  name=${p//\//-}
  flags=
  case $p in fuseoverlay* | image | lifecycle* | netns*) flags=$race ;; esac
  # shellcheck disable=SC2086
  CGO_ENABLED=$([ "$flags" ] && echo 1 || echo 0) compile "$name" "./$p" $flags > "$work/out" 2>&1 ||
    { echo "fail compile $p" >> "$results"; echo "--- FAIL: compile $p"; cat "$work/out"; continue; }
  [ -e "$work/bin/$name.test" ] && run_as "$ordinary" "$p" "$name" "$p"
done
if [ "$root" ]; then
  headline "unit tests as root, where being root makes a difference"
  for p in $packages; do
    case $p in userns* | fuseoverlay | image/erofs | netns* | lifecycle) run_as root "$p as root" "${p//\//-}" "$p" ;; esac
  done
else
  leave_out "unit tests as root" "run make test as root for them"
fi

headline "fuzz targets, a second each"
grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r f; do
  for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$f"); do
    CGO_ENABLED=0 step "fuzz $(dirname "$f") $target" go test -run '^$' -fuzz "^$target\$" -fuzztime 1s "$(dirname "$f")"
  done
done

headline "stories with the built binary, as $ordinary"
if CGO_ENABLED=0 compile e2e ./tests; then
  [ "$root" ] || export MOSS_BIN=$work/bin/moss
  run_as "$ordinary" "stories" e2e tests
  if [ "$root" ]; then
    headline "the short stories, as a user without subordinate ids, and as root"
    run_as mosstest2 "stories, one id" e2e tests -test.short
    run_as root "stories as root" e2e tests -test.short
    step "make demo as root" make demo
  else
    leave_out "stories as root" "run make test as root for them"
    leave_out "stories of a user without subordinate ids" "run make test as root: it makes such a user"
    step "make demo" make demo
  fi
else
  echo "fail compile tests" >> "$results"
fi

headline "done"
grep '^fail' "$results"
count() { grep -c "^$1 " "$results"; }
echo "$(count pass) passed, $(count fail) failed, $(count skip) skipped"
[ "$(count fail)" = 0 ]
