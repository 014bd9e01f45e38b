//! The `kivafs` binary: everything is in the library, so that tests reach it.

/// A third of the processor time of small changes went into the C library's allocator: memory is taken
/// by one thread and given back by another all the time, which is what that one is slowest at.
///
/// Of those that are quick at it, this one keeps pages of the tree, which have 2 to 8 KiB and are never of the
/// same size for long, in runs of a few. Where a dozen share a run, one that stays keeps the memory of all that
/// are gone: with 128 MiB of cache and random changes that was 60 MiB, half of what C6 allows beside the cache.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Two arenas, since what is free in one is of no use to threads of another; what was given back stays for about
/// a second, for who needs it then; no huge pages: they are cleared whole for little, and make the process larger
/// than what it uses (C6).
///
/// jemalloc(3), TUNING: it looks for settings at this symbol before anything of the program runs.
// SAFETY: nothing else has this name, and it is what is expected there: the address of a C string, which is the
// first word of a reference to bytes.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never\0";

fn main() -> std::process::ExitCode {
    kivafs_mount::cli::run(std::env::args_os().collect())
}
