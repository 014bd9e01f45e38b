#!/usr/bin/env bash
# The crate fsx on a real mount: random operations on one file, each read compared with what was
# written.
#
#   tests/real/fsx.sh [file|bucket]         what the store lies on
#
# FSX_SEEDS (usual: 1 2 3 and one that is new each time), FSX_OPERATIONS (usual: 5000), FSX_SHAPES (usual: tiny
# usual large aligned; each gets so many operations with each seed). In a bucket
# fewer of both are usual: each operation takes longer there, and what is overwritten is deleted only
# ten minutes later, for the sake of readers.

. "$(dirname "$0")/place.sh"

# settings LENGTH_MAX BYTES_MAX ALIGNMENT: every operation that the crate knows on Linux, on files that
# stay inside an inode and on files that outgrow requests. Asking fallocate for 0 bytes is an error on
# any file system, and ends it: so never for less than one, and aligned, where that may become 0, without.
settings() {
    local fallocate=2
    [ "$3" = 1 ] || fallocate=0
    cat <<END
flen = $1
[opsize]
min = 1
max = $2
align = $3
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = $fallocate
punch_hole = 3
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
END
}

exercise() {
    local seed=$1 shape=$2
    # A run that goes wrong writes down what it expected ($place/fsx), for a look with KIVAFS_KEEP=1.
    mkdir -p "$place/fsx"
    "$fsx" -q -f "$place/$shape.toml" -N "$operations" -S "$seed" -P "$place/fsx" "$mnt/fsx-$shape-$seed"
    local sum
    sum=$(sha256sum <"$mnt/fsx-$shape-$seed")
    remount
    [ "$(sha256sum <"$mnt/fsx-$shape-$seed")" = "$sum" ]
    rm "$mnt/fsx-$shape-$seed"
}

if [ "${1:-file}" = bucket ]; then
    seeds=1 operations=2000
else
    seeds="1 2 3" operations=5000
fi
operations=${FSX_OPERATIONS:-$operations}
fsx=$(crate fsx)
begin fsx "$@"
settings 3000 1000 1 >"$place/tiny.toml"
settings 262144 65536 1 >"$place/usual.toml"
settings 4194304 2000000 1 >"$place/large.toml"
settings 1048576 131072 4096 >"$place/aligned.toml"
for seed in ${FSX_SEEDS:-$seeds $RANDOM$RANDOM}; do
    for shape in ${FSX_SHAPES:-tiny usual large aligned}; do
        try "fsx, $shape, seed $seed" exercise "$seed" "$shape"
    done
done
finish
