//! The command line: words to one call, errors to one line and an exit code.
//!
//! # Contract
//!
//! * **Exit codes.** 0 done; 1 failed, or something is broken; 2 the command line is wrong;
//!   3 another process has the store. Under the names of helpers those of mount(8), which hands them
//!   on: 0 done; 1 the words are wrong; 32 it was not done.
//! * **One line.** Every error is one line on stderr that says what happened, to what, and what to
//!   do next; then nothing has changed. What programs read goes to stdout.
//! * **Names.** Called as `mount.kivafs`, `mount.fuse.kivafs`, `umount.kivafs` or
//!   `umount.fuse.kivafs`, it takes the words that mount(8) and umount(8) give to their helpers.
//!
//! In reading order:
//!
//! | file | job |
//! |---|---|
//! | `words.rs` | the commands and their words, for clap |
//! | `mount_words.rs` | the words of mount(8) and umount(8) |
//! | `store_options.rs` | what stands after `-o` for every command |
//! | `options.rs` | and for a mount |
//! | `size.rs` | `64M` |
//! | `mode.rs` | `0660` |
//! | `place.rs` | what STORE and DIR name |
//! | `given.rs` | STORE and its options together |
//! | `failure.rs` | what went wrong: its line and its exit code |
//! | `mount.rs` | create, mount, umount |
//! | `serve.rs` | serve |
//! | `look.rs` | info, check |
//! | `cost.rs` | info --cost: what requests cost |
//! | `paths.rs` | get, put, ls, rm |
//! | `keys.rs` | the same of keys, through a server of them |
//! | `top.rs` | top |
//! | `bench.rs` | bench |
//! | `install.rs` | install, uninstall |

mod bench;
mod cost;
mod failure;
mod given;
mod install;
mod keys;
mod look;
mod mode;
mod mount;
mod mount_words;
pub mod options;
mod paths;
mod place;
mod serve;
pub mod size;
pub mod store_options;
mod top;
mod words;

use clap::Parser;
use failure::Failure;
use mount_words::Asked;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use words::{Command, Words};

/// Does what the command line says; the first argument is the name of the program.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let name = arguments.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default();
    type Code = fn(&Failure) -> u8;
    let (done, code): (_, Code) = match name.to_str() {
        Some("mount.kivafs" | "mount.fuse.kivafs") => {
            let done = mount_words::mount(&arguments[1..]).and_then(|asked| done_or_shown(asked, mount::by_helper));
            (done, Failure::code_of_helper)
        }
        Some("umount.kivafs" | "umount.fuse.kivafs") => {
            let done = mount_words::umount(&arguments[1..]).and_then(|asked| done_or_shown(asked, mount::umount_as));
            (done, Failure::code_of_helper)
        }
        _ => (by_command(arguments), Failure::code),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(code(&failure))
        }
    }
}

fn done_or_shown<T>(asked: Asked<T>, work: impl FnOnce(T) -> Result<(), Failure>) -> Result<(), Failure> {
    match asked {
        Asked::Do(what) => work(what),
        Asked::Show(text) => {
            println!("{text}");
            Ok(())
        }
    }
}

fn by_command(arguments: Vec<OsString>) -> Result<(), Failure> {
    match Words::try_parse_from(arguments) {
        Ok(words) => execute(words.command),
        Err(error) if !error.use_stderr() => {
            print!("{error}");
            Ok(())
        }
        Err(error) => Err(Failure::usage(&error)),
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(words) => mount::create(&words),
        Command::Mount(words) => mount::mount(&words),
        Command::Umount(words) => mount::umount(&words),
        Command::Serve(words) => serve::serve(&words),
        Command::Info(words) => look::info(&words),
        Command::Check(words) => look::check(&words),
        Command::Get(words) => paths::get(&words),
        Command::Put(words) => paths::put(&words),
        Command::Ls(words) => paths::ls(&words),
        Command::Rm(words) => paths::rm(&words),
        Command::Top(words) => top::top(&words),
        Command::Bench(words::BenchCommand::S3(words)) => bench::s3(&words),
        Command::Bench(words::BenchCommand::Kv(words)) => bench::kv(&words),
        Command::Bench(words::BenchCommand::Mount(words)) => bench::mount(&words),
        Command::Bench(words::BenchCommand::Growth(words)) => bench::growth(&words),
        Command::Bench(words::BenchCommand::Ceiling(words)) => bench::ceiling(&words),
        Command::Install(words) => install::install(&words),
        Command::Uninstall(words) => install::uninstall(&words),
    }
}
