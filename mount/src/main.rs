//! The `kivafs` binary: everything is in the library, so that tests reach it.

fn main() -> std::process::ExitCode {
    kivafs_mount::cli::run(std::env::args_os().collect())
}
