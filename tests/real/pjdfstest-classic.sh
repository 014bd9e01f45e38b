#!/usr/bin/env bash
# The first pjdfstest, of shell scripts and a program in C, on a real mount: what POSIX asks of each
# call, once more and by another hand. Every assertion must hold, and no script is left out.
#
#   tests/real/pjdfstest-classic.sh [file|bucket]   what the store lies on
#
# PJDFSTEST is the repository that it is cloned from, a directory or an address; it is left as it is.

. "$(dirname "$0")/place.sh"
. "$root/tests/need.sh"

# What is tested with; and how many assertions it makes on FUSE. (Of file systems that it does not know,
# it does not ask whether rename changes ctime: ours are asked by the crate.)
repository=${PJDFSTEST:-https://github.com/pjd/pjdfstest.git}
commit=85a8aea9e685999ef0540392fd80535f873d7ff7
assertions=8798

suite() {
    git clone --quiet --no-hardlinks "$repository" "$place/suite"
    git -C "$place/suite" checkout --quiet "$commit"
    cd "$place/suite"
    autoreconf -ifs
    ./configure
    make pjdfstest
}

# Its scripts wait for the clock to go on, more often than they do anything: many at once. Each has
# names of its own.
assert_all() {
    local jobs=16
    cd "$mnt"
    prove --jobs "$jobs" --recurse --verbose --merge "$place/suite/tests" >"$place/results" || {
        sed -n '/# TODO/!{/^not ok/p}' "$place/results"
        sed -n '/^Test Summary Report/,$p' "$place/results"
        return 1
    }
    grep -qx "Files=[0-9]*, Tests=$assertions, .*" "$place/results" ||
        fail "$(grep '^Files=' "$place/results"); expected: $assertions assertions"
    tail -n 1 "$place/results" | grep -x 'Result: PASS'
}

export KIVAFS_PATIENCE=${KIVAFS_PATIENCE:-3600}
need autoreconf:autoconf aclocal:automake make:make cc:gcc git:git prove:perl openssl:openssl
begin pjdfstest-classic "$@"
# Its users must get in.
chmod 755 "$place"
try "pjdfstest in C, the build" suite
try "pjdfstest in C, $assertions assertions" assert_all
finish
