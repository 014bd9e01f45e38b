//! The commands and their words.

use crate::cli::size::parse_size;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// A key-value store whose keys appear as files.
#[derive(Debug, Parser)]
#[command(name = "kivafs", version, after_help = "Exit codes: 0 done; 1 failed or broken; 2 usage; 3 store in use.")]
pub struct Words {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new, empty store
    Create(CreateWords),
    /// Mount a store at a directory; returns when it is usable
    Mount(MountWords),
    /// Unmount; returns when everything is durable
    Umount(UmountWords),
    /// Tell what a store is, and who holds it
    Info(LookWords),
    /// Verify a store; exit code 1 and a list when it is broken
    Check(CheckWords),
    /// Write a file of a store to stdout
    Get(PathWords),
    /// Make a file of a store from stdin, or from FILE: whole or not at all, durable when done
    Put(PutWords),
    /// List a directory of a store
    Ls(LsWords),
    /// Remove a file or an empty directory of a store
    Rm(PathWords),
}

#[derive(Debug, Args)]
pub struct CreateWords {
    /// The file to make
    pub store: PathBuf,
    /// Most bytes that it may come to occupy (suffixes K, M, G, T); without: what its disk has
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub size: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = crate::cli::options::HELP)]
pub struct MountWords {
    /// The store's file
    pub store: PathBuf,
    /// The directory to mount it at
    pub dir: PathBuf,
    /// Stay in the foreground; log to stderr
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Make the store if there is none
    #[arg(long)]
    pub create: bool,
    /// Take the store from a holder that can't be asked (only stores in S3 have such)
    #[arg(long)]
    pub takeover: bool,
    /// Options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Ignore options that are not known
    #[arg(short = 's', long)]
    pub sloppy: bool,
    /// This process is the one that serves, and says "ready" on stdout.
    #[arg(long, hide = true)]
    pub serve_in_background: bool,
}

#[derive(Debug, Args)]
pub struct UmountWords {
    /// Where it is mounted (or the store)
    pub dir: PathBuf,
    /// End whatever goes on there; programs get errors
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct LookWords {
    /// The store's file
    pub store: PathBuf,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CheckWords {
    /// The store's file
    pub store: PathBuf,
    /// Every stored byte, too
    #[arg(long)]
    pub data: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PathWords {
    /// The store's file
    pub store: PathBuf,
    /// A path in the store
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct LsWords {
    /// The store's file
    pub store: PathBuf,
    /// A path in the store
    #[arg(default_value = "/")]
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct PutWords {
    /// The store's file
    pub store: PathBuf,
    /// A path in the store
    pub path: OsString,
    /// Where the content comes from; without: stdin
    pub file: Option<PathBuf>,
}
