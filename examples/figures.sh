#!/usr/bin/env bash
# Runs `kivafs bench mount` and `kivafs bench growth` on the disk of DIR and draws them: as root, on a machine
# that does nothing else, for about half an hour.
#
#   examples/figures.sh [DIR]
#
# DIR is a directory of the disk to measure; without, where temporary files go. What is said and drawn lies in
# figures/ afterwards, for README.md. FILES, BIG and ROUNDS are for `bench mount`, GROWTH is for `bench growth`: how much.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
KIVAFS=${KIVAFS:-$target/release/kivafs}
figures=$root/figures
dir=${1:-${TMPDIR:-/tmp}}

[ -x "$KIVAFS" ] || cargo build --release --locked --workspace --manifest-path "$root/Cargo.toml"
mkdir -p "$figures"
"$KIVAFS" bench mount "$dir" --files "${FILES:-10000}" --big "${BIG:-256M}" --rounds "${ROUNDS:-5}" \
    --svg "$figures/mount.svg" | tee "$figures/mount.txt"
"$KIVAFS" bench growth "$dir" --files "${GROWTH:-1000000}" --svg "$figures/growth.svg" | tee "$figures/growth.txt"
echo "drawn: $figures/mount.svg, $figures/growth.svg"
