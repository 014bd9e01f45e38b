//! The commands and their words.

use crate::cli::mode::parse_mode;
use crate::cli::size::parse_size;
use crate::cli::{options, store_options};
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
    /// Serve the keys of a store over a socket, without a mount, until a signal comes
    Serve(ServeWords),
    /// Tell what a store is, and who holds it
    Info(InfoWords),
    /// Verify a store; exit code 1 and a list when it is broken
    Check(CheckWords),
    /// Write a file of a store to stdout
    Get(GetWords),
    /// Make a file of a store from stdin, or from FILE: whole or not at all, durable when done
    Put(PutWords),
    /// List a directory of a store
    Ls(LsWords),
    /// Remove a file or an empty directory of a store
    Rm(RmWords),
    /// Show what a mount does, live
    Top(TopWords),
    /// Put the program in place, with its names for mount(8), man pages, completions and a systemd unit
    Install(InstallWords),
    /// Take away what install has put in place; what was changed by hand stays
    Uninstall(InstallWords),
    /// Measure, beside what the machine or the server can do
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Debug, Args)]
pub struct TopWords {
    /// Where it is mounted
    pub dir: PathBuf,
    /// Show it once, and end
    #[arg(long, conflicts_with = "times")]
    pub once: bool,
    /// Show it so often, and end; without: until Ctrl-C
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub times: Option<u64>,
    /// Seconds that each is over
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// For programs: an object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// A store in a bucket
    S3(BenchS3Words),
    /// Keys over a socket, with the pairs and requests of kivaloo's own benchmarks
    Kv(BenchKvWords),
    /// A mount on a local store, beside the same in memory and the plain disk
    Mount(BenchMountWords),
    /// A store as it grows: how fast files are made, mounting after kill -9, memory
    Growth(BenchGrowthWords),
    /// Serve the file system in memory that `mount` is measured beside, until it is unmounted
    Ceiling(BenchCeilingWords),
}

#[derive(Debug, Args)]
#[command(after_help = format!("{}\n{}", store_options::HELP, options::HELP))]
pub struct BenchMountWords {
    /// A directory of the disk to measure: everything happens in a fresh one there, which is removed at
    /// the end; without: where temporary files go
    pub dir: Option<PathBuf>,
    /// Small files
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub files: u32,
    /// Bytes of each large file: some MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "256M")]
    pub big: u64,
    /// Only the rows of which the names begin like this (and those that they need), separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// How often all is done; medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub rounds: u8,
    /// Draw it, too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Options for the mount, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{}\n{}", store_options::HELP, options::HELP))]
pub struct BenchGrowthWords {
    /// A directory of the disk to measure, as for bench mount
    pub dir: Option<PathBuf>,
    /// Files in the end
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub files: u32,
    /// Files when it is looked at for the first time; then at ten times as many, and so on
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub first: u32,
    /// Make them by the library, as keys, all in one directory: for very many
    #[arg(long = "library")]
    pub by_library: bool,
    /// Draw it, too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Options for the mount, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct BenchCeilingWords {
    /// The directory to mount it at
    pub dir: PathBuf,
    /// Threads that read requests
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: u8,
}

#[derive(Debug, Args)]
pub struct InstallWords {
    /// Where programs of that kind lie
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    pub prefix: PathBuf,
    /// All of it below this directory, which will be the root: for who makes packages
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = store_options::HELP)]
pub struct BenchKvWords {
    /// A directory of the disk to measure: everything happens in a fresh one there, which is removed at
    /// the end; without: where temporary files go
    pub dir: Option<PathBuf>,
    /// Pairs that are loaded
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    pub pairs: u32,
    /// How long each steady state is measured, after one second
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// How often all is done; medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub rounds: u8,
    /// Options for the store, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = store_options::HELP)]
pub struct BenchS3Words {
    /// Where: everything happens below a fresh name there, and is removed at the end
    #[command(flatten)]
    pub store: StoreWords,
    /// A directory to mount in, and for the local store to compare with
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Bytes of the big file
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "1G")]
    pub big: u64,
    /// How often it is written and read; medians are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub rounds: u8,
    /// Files of the store that is mounted again
    #[arg(long, default_value_t = 100_000)]
    pub files: usize,
    /// Seconds without anything to do
    #[arg(long, default_value_t = 20)]
    pub idle: u64,
}

/// STORE, and how it is reached.
#[derive(Debug, Args)]
pub struct StoreWords {
    /// The store: a local file, or s3://BUCKET/PREFIX
    pub store: PathBuf,
    /// Options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
}

/// A store, or who serves its keys. The words after `store` move up where that is not given.
#[derive(Debug, Args)]
pub struct SourceWords {
    /// The store: a local file, or s3://BUCKET/PREFIX; with --kvlds NAME stands here, a key's file name
    #[arg(required_unless_present = "kvlds")]
    pub store: Option<PathBuf>,
    /// Options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS", conflicts_with = "kvlds")]
    pub options: Vec<OsString>,
    /// Ask the server of keys that listens there; no store is opened
    #[arg(long, value_name = "PATH|ADDRESS:PORT")]
    pub kvlds: Option<String>,
}

/// What becomes of a holder who is in the way: of a store in a bucket, of who writes. Reading needs no
/// takeover there: it shows what the newest commit left.
#[derive(Debug, Args)]
pub struct TakeoverWords {
    /// Take the store from a holder that is gone for good (only in S3: a local file is free then)
    #[arg(long)]
    pub takeover: bool,
}

#[derive(Debug, Args)]
#[command(after_help = store_options::HELP)]
pub struct CreateWords {
    #[command(flatten)]
    pub store: StoreWords,
    /// Most bytes that it may come to occupy (suffixes K, M, G, T); without: what there is
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub size: Option<u64>,
    /// The directory whose entries are the keys, to be made in the store; without: the root
    #[arg(long, value_name = "PATH")]
    pub kvlds_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{}\n{}", store_options::HELP, options::HELP))]
pub struct MountWords {
    #[command(flatten)]
    pub store: StoreWords,
    /// The directory to mount it at
    pub dir: PathBuf,
    /// Stay in the foreground; log to stderr
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Make the store if there is none
    #[arg(long)]
    pub create: bool,
    #[command(flatten)]
    pub takeover: TakeoverWords,
    /// Ignore options that are not known
    #[arg(short = 's', long)]
    pub sloppy: bool,
    /// This process is the one that serves, and says "ready" on stdout.
    #[arg(long, hide = true)]
    pub serve_in_background: bool,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{}\n{}", store_options::HELP, options::HELP))]
pub struct ServeWords {
    #[command(flatten)]
    pub store: StoreWords,
    /// Where to listen: the path of a Unix socket, or 127.0.0.1:PORT
    #[arg(long, value_name = "PATH|ADDRESS:PORT")]
    pub kvlds: String,
    /// Mode of the socket's file: who may write to it may connect
    #[arg(long, value_name = "MODE", value_parser = parse_mode, default_value = "0600")]
    pub mode: u32,
    /// Make the store if there is none
    #[arg(long)]
    pub create: bool,
    #[command(flatten)]
    pub takeover: TakeoverWords,
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
#[command(after_help = store_options::HELP)]
pub struct InfoWords {
    #[command(flatten)]
    pub store: StoreWords,
    /// And what its requests have cost, beside the same writes elsewhere (S3 only)
    #[arg(long)]
    pub cost: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = store_options::HELP)]
pub struct CheckWords {
    #[command(flatten)]
    pub store: StoreWords,
    /// Every stored byte, too
    #[arg(long)]
    pub data: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = store_options::HELP,
    override_usage = "kivafs get [OPTIONS] <STORE> <PATH>\n       kivafs get --kvlds <PATH|ADDRESS:PORT> <NAME>"
)]
pub struct GetWords {
    #[command(flatten)]
    pub source: SourceWords,
    /// A path in the store
    #[arg(required_unless_present = "kvlds", conflicts_with = "kvlds")]
    pub path: Option<OsString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = store_options::HELP,
    override_usage = "kivafs rm [OPTIONS] <STORE> <PATH>\n       kivafs rm --kvlds <PATH|ADDRESS:PORT> <NAME>"
)]
pub struct RmWords {
    #[command(flatten)]
    pub source: SourceWords,
    #[command(flatten)]
    pub takeover: TakeoverWords,
    /// A path in the store
    #[arg(required_unless_present = "kvlds", conflicts_with = "kvlds")]
    pub path: Option<OsString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = store_options::HELP,
    override_usage = "kivafs ls [OPTIONS] <STORE> [PATH]\n       kivafs ls --kvlds <PATH|ADDRESS:PORT>"
)]
pub struct LsWords {
    #[command(flatten)]
    pub source: SourceWords,
    /// A path in the store; without: all of its root
    #[arg(conflicts_with = "kvlds")]
    pub path: Option<OsString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = store_options::HELP,
    override_usage = "kivafs put [OPTIONS] <STORE> <PATH> [FILE]\n       kivafs put --kvlds <PATH|ADDRESS:PORT> <NAME> [FILE]"
)]
pub struct PutWords {
    #[command(flatten)]
    pub source: SourceWords,
    #[command(flatten)]
    pub takeover: TakeoverWords,
    /// A path in the store; with --kvlds FILE stands here
    #[arg(required_unless_present = "kvlds")]
    pub path: Option<OsString>,
    /// Where the content comes from; without: stdin
    #[arg(conflicts_with = "kvlds")]
    pub file: Option<PathBuf>,
}
