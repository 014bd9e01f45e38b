//! What a mount is asked to be.

pub use crate::facade::{Appearance, SyncMode};
use crate::fs::AccessTimes;
use crate::kvlds::server::{Address, USUAL_MODE};
use crate::life::place::Place;
use kivafs::store::{Compression, CreateOptions, OpenOptions};
use nix::unistd::{SysconfVar, sysconf};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A mount as it is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The store.
    pub store: Place,
    /// Where to mount it. Absolute.
    pub dir: PathBuf,
    /// Make the store if there is none.
    pub create: bool,
    /// Take it from a holder that can't be asked.
    pub takeover: bool,
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
    /// Reading changes no time. (That is up to us; the kernel shows it in the list of mounts.)
    pub noatime: bool,
    /// Reading changes no directory's time.
    pub nodiratime: bool,
}

impl Default for KernelFlags {
    fn default() -> KernelFlags {
        KernelFlags { nodev: true, nosuid: true, noexec: false, noatime: true, nodiratime: false }
    }
}

/// How a store is reached and opened: the options that every command takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of cache; `None`: what is usual on this machine.
    pub cache_bytes: Option<u64>,
    /// For new data.
    pub compression: Compression,
    /// Most bytes that the store may come to occupy.
    pub size_max: Option<u64>,
    /// How long a request that we have taken may wait for storage.
    pub timeout: Duration,
    /// For stores in buckets.
    pub bucket: BucketOptions,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cache_bytes: None,
            compression: Compression::default(),
            size_max: None,
            timeout: Duration::from_secs(300),
            bucket: BucketOptions::default(),
        }
    }
}

impl StoreOptions {
    /// For opening the store.
    pub fn for_opening(&self) -> OpenOptions {
        OpenOptions {
            cache_bytes: self.cache_bytes.unwrap_or_else(|| usual_cache_bytes(memory_bytes())),
            compression: self.compression,
            size_max: self.size_max,
            timeout: self.timeout,
            unsafe_no_fencing: self.bucket.unsafe_no_fencing,
            disk_cache: self.bucket.disk_cache.clone(),
            ..OpenOptions::default()
        }
    }

    /// For making a store of at most `size` bytes.
    pub fn for_creating(&self, size: Option<u64>) -> CreateOptions {
        let unsafe_no_fencing = self.bucket.unsafe_no_fencing;
        CreateOptions { size, unsafe_no_fencing, timeout: self.timeout, ..CreateOptions::default() }
    }
}

/// Bytes of cache, unless told otherwise: what is read and changed at random is several times as fast where its
/// pages find room, and a cache that is not needed is not filled. But a sixteenth of the memory at most that there is
/// for this process, as far as that is not too little.
fn usual_cache_bytes(memory_bytes: u64) -> u64 {
    (memory_bytes / 16).clamp(64 << 20, 256 << 20)
}

/// Of the machine, or what a container or service of it may take; 0: it does not tell.
fn memory_bytes() -> u64 {
    let of = |variable| sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    let of_machine = of(SysconfVar::_PHYS_PAGES).saturating_mul(of(SysconfVar::PAGE_SIZE));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(of_machine, |limit| limit.min(of_machine))
}

/// The least `memory.max` of the process's control group and those above it: cgroups(7), version 2. `groups`: what
/// /proc/self/cgroup says, where a line `0::/PATH` names that group. `None`: there is no limit, or none to be seen.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |group: &Path| std::fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok();
    Path::new(group).ancestors().filter_map(limit).min()
}

/// How a bucket is reached. What is not said comes from where AWS's own tools take it: the
/// environment, profiles, the machine's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketOptions {
    /// The server's URL.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// The profile in `~/.aws/config` and `~/.aws/credentials`.
    pub profile: Option<String>,
    /// The bucket's name stands in the path of URLs, not in the host's name.
    pub path_style: Option<bool>,
    /// Certificates to trust, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Most requests under way at once.
    pub requests_max: usize,
    /// A directory for what was read, and most bytes in it.
    pub disk_cache: Option<(PathBuf, u64)>,
    /// Write also where the server can't keep two writers apart.
    pub unsafe_no_fencing: bool,
}

impl Default for BucketOptions {
    fn default() -> BucketOptions {
        BucketOptions {
            endpoint: None,
            region: None,
            profile: None,
            path_style: None,
            ca_file: None,
            requests_max: 16,
            disk_cache: None,
            unsafe_no_fencing: false,
        }
    }
}

impl BucketOptions {
    /// The name of an option that was given, if one was: for a file they mean nothing.
    pub fn first_given(&self) -> Option<&'static str> {
        let usual = BucketOptions::default();
        let given = [
            (self.endpoint != usual.endpoint, "endpoint"),
            (self.region != usual.region, "region"),
            (self.profile != usual.profile, "profile"),
            (self.path_style == Some(true), "path_style"),
            (self.path_style == Some(false), "virtual_style"),
            (self.ca_file != usual.ca_file, "ca"),
            (self.requests_max != usual.requests_max, "requests"),
            (self.disk_cache != usual.disk_cache, "disk_cache"),
            (self.unsafe_no_fencing, "unsafe_no_fencing"),
        ];
        given.into_iter().find_map(|(given, name)| given.then_some(name))
    }
}

/// The `-o` options of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// How the store is reached and opened.
    pub store: StoreOptions,
    /// Nothing is changed.
    pub read_only: bool,
    /// Other users may use the mount, as the modes of its files say. `None`: root's may.
    pub allow_other: Option<bool>,
    /// Most inodes that the kernel may hold.
    pub inodes_max: usize,
    /// Longest time from a change to its commit.
    pub commit_interval: Duration,
    /// Whose files are said to be.
    pub appearance: Appearance,
    /// Which changes are durable at once.
    pub sync: SyncMode,
    /// Threads that read requests and never wait.
    pub threads: usize,
    /// What the kernel watches over.
    pub kernel: KernelFlags,
    /// Where the keys are served beside the mount, if they are.
    pub kvlds: Option<Address>,
    /// Mode of that socket's file.
    pub kvlds_mode: u32,
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
            store: StoreOptions::default(),
            read_only: false,
            allow_other: None,
            inodes_max: 400_000,
            commit_interval: Duration::from_secs(5),
            appearance: Appearance::default(),
            sync: SyncMode::default(),
            // With fewer, who has just answered is waited for: a thread that waits in read(2) takes the next
            // request sooner. Measured with 2 processors: 2 threads open and read files at 0.6 of the rate.
            threads: 4,
            kernel: KernelFlags::default(),
            kvlds: None,
            kvlds_mode: USUAL_MODE,
            remount: false,
            log: LogPlace::default(),
            log_level: tracing::Level::INFO,
        }
    }
}

impl MountOptions {
    /// Which reads change times of access.
    pub fn access_times(&self) -> AccessTimes {
        match self.read_only || self.kernel.noatime {
            true => AccessTimes::Never,
            false => AccessTimes::Relative { directories: !self.kernel.nodiratime },
        }
    }

    /// The names of options that were given and that a mount takes only at its beginning.
    pub fn fixed_given(&self) -> Vec<&'static str> {
        let usual = MountOptions::default();
        let given = [
            (self.store.cache_bytes != usual.store.cache_bytes, "cache"),
            (self.store.compression != usual.store.compression, "compress"),
            (self.store.size_max != usual.store.size_max, "max_size"),
            (self.store.timeout != usual.store.timeout, "timeout"),
            (self.allow_other == Some(false), "root_only"),
            (self.inodes_max != usual.inodes_max, "inodes"),
            (self.commit_interval != usual.commit_interval, "commit"),
            (self.sync == SyncMode::Everything, "sync"),
            (self.sync == SyncMode::Names, "dirsync"),
            (self.threads != usual.threads, "threads"),
            (self.kvlds != usual.kvlds, "kvlds"),
            (self.appearance.uid.is_some(), "uid"),
            (self.appearance.gid.is_some(), "gid"),
            (self.appearance.umask != 0, "umask"),
            (self.log != usual.log || self.log_level != usual.log_level, "log"),
        ];
        let given = given.into_iter().filter_map(|(given, name)| given.then_some(name));
        given.chain(self.store.bucket.first_given()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_cache_is_a_part_of_the_memory_within_bounds() {
        let mib = |memory_mib: u64| usual_cache_bytes(memory_mib << 20) >> 20;
        assert_eq!([0, 512, 1024, 2048, 4096, 1 << 20].map(mib), [64, 64, 64, 128, 256, 256]);
        assert!(memory_bytes() > 64 << 20);
    }

    #[test]
    fn the_limit_of_a_control_group_is_that_of_the_tightest_above_it() {
        let root = assert_fs::TempDir::new().unwrap();
        let group = root.path().join("system.slice/kivafs.service");
        std::fs::create_dir_all(&group).unwrap();
        let groups = "4:memory:/elsewhere\n0::/system.slice/kivafs.service\n";
        assert_eq!(group_limit(groups, root.path()), None, "no limit is set anywhere");
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit(groups, root.path()), None);
        std::fs::write(group.join("../memory.max"), "700000000\n").unwrap();
        assert_eq!(group_limit(groups, root.path()), Some(700_000_000));
        std::fs::write(group.join("memory.max"), "500000000\n").unwrap();
        assert_eq!(group_limit(groups, root.path()), Some(500_000_000));
        // Seen from within a container.
        std::fs::write(root.path().join("memory.max"), "300000000\n").unwrap();
        assert_eq!(group_limit("0::/\n", root.path()), Some(300_000_000));
        assert_eq!(group_limit("4:memory:/elsewhere\n", root.path()), None, "version 1");
    }
}
