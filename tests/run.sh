#!/usr/bin/env bash
# All tests: cargo's, then the release build on a real mount. Says at the end what failed.
#
#   tests/run.sh            everything
#   tests/run.sh --long     and 200 rounds each of kill -9 and of umount X; mount X; memory with a file of
#                           10 GiB and a million small ones
#
# (But for those that take hours: nightly.sh.)

set -euo pipefail
cd "$(dirname "$0")/.."
. tests/steps.sh

case "${1:-}" in
"") export MEMORY_SIZE=512M MEMORY_FILES=20000 ;;
--long) export KIVAFS_ROUNDS=200 ;;
*) fail "usage: tests/run.sh [--long]" ;;
esac

prepare
step "cargo test" cargo_test --workspace
for script in tools programs pjdfstest fsx; do
    for medium in file bucket; do
        step "real mount, $script, in a $medium" real "$script" "$medium"
    done
done
step "ceiling, pjdfstest" real pjdfstest ceiling
for script in space full boot outage memory; do
    step "real mount, $script" real "$script"
done
conclude
