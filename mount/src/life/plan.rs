//! What a mount is asked to be.

pub use crate::facade::SyncMode;
use kivafs::store::Compression;
use std::path::PathBuf;
use std::time::Duration;

/// A mount as it is asked for. Both paths are absolute.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The store's file.
    pub store: PathBuf,
    /// Where to mount it.
    pub dir: PathBuf,
    /// Make the store if there is none.
    pub create: bool,
    /// The `-o` options.
    pub options: MountOptions,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LogPlace {
    /// To stderr in the foreground, to syslog in the background.
    #[default]
    Usual,
    /// To the end of this file.
    File(PathBuf),
}

/// What the kernel itself watches over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFlags {
    /// Device nodes do not open.
    pub nodev: bool,
    /// Set-user-id bits do not count.
    pub nosuid: bool,
    /// Nothing is executed.
    pub noexec: bool,
    /// Reading changes no time. Always so with us; shown in the list of mounts.
    pub noatime: bool,
}

impl Default for KernelFlags {
    fn default() -> KernelFlags {
        KernelFlags { nodev: true, nosuid: true, noexec: false, noatime: false }
    }
}

/// The `-o` options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Nothing is changed.
    pub read_only: bool,
    /// Other users may use the mount, as the modes of its files say. `None`: root's may.
    pub allow_other: Option<bool>,
    /// Bytes of cache.
    pub cache_bytes: u64,
    /// Most inodes that the kernel may hold.
    pub inodes_max: usize,
    /// Longest time from a change to its commit.
    pub commit_interval: Duration,
    /// Which changes are durable at once.
    pub sync: SyncMode,
    /// For new data.
    pub compression: Compression,
    /// How long a request that we have taken may last.
    pub timeout: Duration,
    /// Threads that read requests.
    pub threads: usize,
    /// What the kernel watches over.
    pub kernel: KernelFlags,
    /// Change the flags of a mount that is there (mount(8)'s `remount`).
    pub remount: bool,
    /// Where the log goes.
    pub log: LogPlace,
    /// From which level on.
    pub log_level: tracing::Level,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            read_only: false,
            allow_other: None,
            cache_bytes: 64 << 20,
            inodes_max: 400_000,
            commit_interval: Duration::from_secs(5),
            sync: SyncMode::default(),
            compression: Compression::default(),
            timeout: Duration::from_secs(300),
            threads: 2,
            kernel: KernelFlags::default(),
            remount: false,
            log: LogPlace::default(),
            log_level: tracing::Level::INFO,
        }
    }
}
