# Sourced by run.sh and nightly.sh: steps that are counted, and what they all need.
#
# As root, or as a user with sudo: then only what mounts runs as root, and the build stays the user's.

. tests/need.sh
. tests/real/place.sh

root_shell=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "the tests mount: run them as root, or install sudo"
    # Test programs are run by root; cargo itself is not.
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E"
    root_shell=(sudo -E env "PATH=$PATH")
fi

summary=()
failures=
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

# real SCRIPT [WORD...]: one of tests/real.
real() {
    "${root_shell[@]}" "tests/real/$1.sh" "${@:2}"
}

# What every other step needs.
prepare() {
    need_rust
    need fusermount3:fuse3 rsync:rsync sqlite3:sqlite3 git:git tar:tar setfattr:attr setfacl:acl cc:gcc make:make mount:mount unshare:util-linux prlimit:util-linux lsattr:e2fsprogs pgrep:procps
    # For tests/real/boot.sh, full.sh and mount/tests/install.rs.
    need man:man-db groff:groff-base zsh:zsh fish:fish systemd-analyze:systemd dpkg-deb:dpkg strip:binutils \
        setpriv:util-linux mkfs.ext4:e2fsprogs
    need_fuse
    step "release build" cargo build --release --locked --workspace
    step "crate fsx" crate fsx
    step "crate pjdfstest" crate pjdfstest
    # One that was up before is somebody's who goes on working with it.
    if ! real ceph up; then
        trap 'real ceph stop' EXIT
    fi
    step "S3 server" real ceph start
}

# cargo_test WORD...: and how many tests there were.
cargo_test() {
    local output=$target/cargo-test.log result=0
    cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$output" || result=1
    echo
    echo "cargo test, in all:"
    awk '/^test result:/ { passed += $4; failed += $6; ignored += $8; programs++ }
        END { printf "%d passed, %d failed, %d ignored in %d programs\n", passed, failed, ignored, programs
              exit ignored != 0 || passed == 0 }' "$output" || result=1
    # Said long before the end.
    failures+=$(awk '/^failures:$/ { shown = 1 } /^test result:/ { shown = 0 } shown' "$output")
    return $result
}

# What each step came to, what failed in full, and the exit code.
conclude() {
    echo
    echo "=== summary"
    printf '%s\n' "${summary[@]}"
    if [ "$status" = 0 ]; then
        echo "all tests passed"
    else
        printf '%s\n' "$failures"
        echo "TESTS FAILED"
    fi
    exit "$status"
}
