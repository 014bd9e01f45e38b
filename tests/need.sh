# Sourced by scripts that need programs: what is missing is installed, on Debian and its like.

# Prints a command, then runs it.
run() {
    printf '$ %s\n' "$*"
    "$@"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        run "$@"
    elif command -v sudo >/dev/null; then
        run sudo "$@"
    else
        echo "this needs root, or sudo: $*" >&2
        return 1
    fi
}

# need PROGRAM:PACKAGE...: installs the packages of those programs that are not there.
need() {
    local pair packages=()
    for pair in "$@"; do
        # Users' PATH may lack the sbin directories.
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    [ ${#packages[@]} != 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "install these first (there is no apt-get to do it with): ${packages[*]}" >&2
        return 1
    fi
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"
}

# Rust is the one thing that is not installed for you.
need_rust() {
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust (1.88 or newer) from https://rustup.rs" >&2
        return 1
    fi
}

# The kernel's side of FUSE.
need_fuse() {
    if [ ! -c /dev/fuse ]; then
        as_root modprobe fuse || echo "modprobe fuse: refused" >&2
    fi
    if [ ! -c /dev/fuse ]; then
        echo "/dev/fuse is missing: nothing can be mounted here (in a container: --device /dev/fuse --cap-add SYS_ADMIN)" >&2
        return 1
    fi
    # What udev makes of it; containers often leave it to root.
    [ -w /dev/fuse ] || as_root chmod 0666 /dev/fuse
}

# What an example needs, and the program: afterwards $kivafs is its path.
need_kivafs() {
    echo "# What it needs"
    need_rust
    need fusermount3:fuse3 cc:gcc make:make
    need_fuse
    echo "# The build"
    run cargo build --release --locked --workspace
    kivafs=${CARGO_TARGET_DIR:-$PWD/target}/release/kivafs
}
