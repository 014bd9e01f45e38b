//! The `kivafs` binary: everything is in the library, so that tests reach it.

/// A third of the processor time of small changes went into the C library's allocator: memory is taken
/// by one thread and given back by another all the time, which is what that one is slowest at. Without huge pages: these are cleared whole for little, and
/// make the process larger than what it uses (C6).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    kivafs_mount::cli::run(std::env::args_os().collect())
}
