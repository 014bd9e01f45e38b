#!/usr/bin/env bash
# The tests that take hours: those of run.sh that are random, for long and with seeds that are new each
# time, and suites and programs that are slow by themselves. Says at the end what failed.
#
#   tests/nightly.sh
#
# PJDFSTEST is where the classic pjdfstest is cloned from, if not from GitHub.

set -euo pipefail
cd "$(dirname "$0")/.."
. tests/steps.sh

# For each of three kinds of files, in each run.
operations_file=350000 operations_bucket=20000
seeds=("$RANDOM$RANDOM" "$RANDOM$RANDOM" "$RANDOM$RANDOM")

# random_test PROGRAM MEDIUM [VARIABLE=VALUE...]: what is random in one of mount/tests.
random_test() {
    local -x "${@:3}"
    cargo_test -p kivafs-mount --test "$1" -- "in_a_$2" --nocapture --test-threads 1
}

prepare
export KIVAFS_PATIENCE=7200
for medium in file bucket; do
    operations=operations_$medium
    step "contents, ${!operations} operations, in a $medium" random_test contents $medium "KIVAFS_OPERATIONS=${!operations}"
    for seed in "${seeds[@]}"; do
        step "contents, seed $seed, in a $medium" random_test contents $medium \
            "KIVAFS_OPERATIONS=${!operations}" "KIVAFS_SEED=$seed"
        step "many at once, seed $seed, in a $medium" random_test at_once $medium KIVAFS_ROUNDS=30 "KIVAFS_SEED=$seed"
        step "fsx, seed $seed, in a $medium" env "FSX_SEEDS=$seed" "FSX_OPERATIONS=${!operations}" "${root_shell[@]}" \
            tests/real/fsx.sh $medium
    done
    for script in pjdfstest-classic stress backups postgres; do
        step "real mount, $script, in a $medium" real "$script" "$medium"
    done
done
conclude
