#!/usr/bin/env bash
# All tests: cargo's, then the release build on a real mount. Says at the end what failed.
#
#   tests/run.sh            everything
#   tests/run.sh --long     and 200 rounds each of kill -9 and of umount X; mount X
#
# As root, or as a user with sudo: then only what mounts runs as root, and the build stays the user's.

set -euo pipefail
cd "$(dirname "$0")/.."
. tests/need.sh
. tests/real/place.sh

case "${1:-}" in
"") ;;
--long) export KIVAFS_ROUNDS=200 ;;
*) fail "usage: tests/run.sh [--long]" ;;
esac

root_shell=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "the tests mount: run them as root, or install sudo"
    # Test programs are run by root; cargo itself is not.
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E"
    root_shell=(sudo -E env "PATH=$PATH")
fi
need_rust
need fusermount3:fuse3 rsync:rsync sqlite3:sqlite3 git:git tar:tar setfattr:attr setfacl:acl cc:gcc mount:mount unshare:util-linux pgrep:procps
need_fuse

summary=()
status=0

# step NAME COMMAND...
step() {
    local name=$1 start=$SECONDS verdict=ok
    shift
    echo
    echo "=== $name: $*"
    "$@" || verdict=FAILED
    [ "$verdict" = ok ] || status=1
    summary+=("$(printf '%-6s %s (%d s)' "$verdict" "$name" $((SECONDS - start)))")
}

cargo_test() {
    local output=$target/cargo-test.log result=0
    cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$output" || result=1
    echo
    echo "cargo test, in all:"
    awk '/^test result:/ { passed += $4; failed += $6; ignored += $8; programs++ }
        END { printf "%d passed, %d failed, %d ignored in %d programs\n", passed, failed, ignored, programs
              exit ignored != 0 || passed == 0 }' "$output" || result=1
    return $result
}

# What failed said so long before the end.
tell_failures() {
    local output=$target/cargo-test.log
    [ ! -e "$output" ] || awk '/^failures:$/ { shown = 1 } /^test result:/ { shown = 0 } shown' "$output"
}

step "release build" cargo build --release --locked --workspace
step "crate fsx" crate fsx
step "crate pjdfstest" crate pjdfstest
# One that was up before is somebody's who goes on working with it.
if ! "${root_shell[@]}" tests/real/ceph.sh up; then
    trap '"${root_shell[@]}" tests/real/ceph.sh stop' EXIT
fi
step "S3 server" "${root_shell[@]}" tests/real/ceph.sh start
step "cargo test" cargo_test
for script in tools pjdfstest fsx; do
    for medium in file bucket; do
        step "real mount, $script, in a $medium" "${root_shell[@]}" "tests/real/$script.sh" "$medium"
    done
done
step "ceiling, pjdfstest" "${root_shell[@]}" tests/real/pjdfstest.sh ceiling
for script in space outage; do
    step "real mount, $script" "${root_shell[@]}" "tests/real/$script.sh"
done

echo
echo "=== summary"
printf '%s\n' "${summary[@]}"
if [ "$status" = 0 ]; then
    echo "all tests passed"
else
    tell_failures
    echo "TESTS FAILED"
fi
exit "$status"
