//! A process that serves a store, by a mount or over a socket, from its beginning to its end.
//!
//! # Contract
//!
//! * **Order.** The store is opened first and mounted last; an error on the way undoes what was
//!   done. A socket beside the mount can be connected to before that, and is served once the mount is
//!   usable: so nothing that was asked for over it is undone. At the end the kernel's side goes first
//!   (umount, or a signal makes us do it), then the socket, then requests that are still parked are
//!   answered, then the store is closed, and only then does anybody who waits hear the verdict:
//!   durable, or why not.
//! * **One unmount.** Only [`detach`] unmounts, and only what it has just seen to be ours. A
//!   session that ends never unmounts: a newer mount may already stand at the same place.
//! * **Threads.** Everything that starts a process does so before the first thread exists;
//!   signals are blocked before the first thread, so that one thread takes them all.
//! * **Errors.** One [`LifeError`] each, that says what happened, to what, and what to do.
//!
//! In reading order:
//!
//! | file | job |
//! |---|---|
//! | `plan.rs` | what a mount is asked to be |
//! | `mountinfo.rs` | what the kernel says is mounted where |
//! | `place.rs` | where a store is: a local file, or a bucket |
//! | `mount_point.rs` | is DIR a place to mount at? dead mounts of ours are cleared away |
//! | `holder.rs` | opening a store that may still be held by a process that drains |
//! | `opened.rs` | opening the store that is to be served |
//! | `attach.rs` | mount(2), or fusermount3: a descriptor for the session |
//! | `session.rs` | what every mount of this program has in common |
//! | `detach.rs` | umount(2), or fusermount3; aborting a connection |
//! | `background.rs` | starting itself again, and the word "ready" |
//! | `signals.rs` | SIGTERM and SIGINT |
//! | `supervisor.rs` | what systemd is told |
//! | `verdict.rs` | how who waits for the end learns how it went |
//! | `drain.rs` | closing a store, watched |
//! | `serve.rs` | the life of the process that serves a mount |
//! | `serve_keys.rs` | and of one that serves keys without a mount |
//! | `unmount.rs` | `kivafs umount`: detach, wait for the verdict |
//! | `journal.rs` | where the log goes |
//! | `progress.rs` | one line on a terminal for what takes long |
//! | `written.rs` | what a server wrote, as it says at its end |

pub mod attach;
pub mod background;
pub mod detach;
pub mod drain;
pub mod holder;
pub mod journal;
pub mod mount_point;
pub mod mountinfo;
pub mod opened;
pub mod place;
pub mod plan;
pub mod progress;
pub mod serve;
pub mod serve_keys;
pub mod session;
pub mod signals;
pub mod supervisor;
pub mod unmount;
pub mod verdict;
pub mod written;

use crate::kvlds::server::ListenError;
use kivafs::store::{Holder, OpenError, StoreError};
use std::path::PathBuf;
use std::time::SystemTime;
use thiserror::Error;

/// What can go wrong in the life of a mount. Each is one line for a person.
#[derive(Debug, Error)]
pub enum LifeError {
    /// The store did not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The socket cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Who has the store can't be asked from here.
    #[error("{store}: in use by {holder}")]
    HeldElsewhere {
        store: PathBuf,
        holder: Holder,
        /// When it last committed anything, if that could be found out.
        last_commit: Option<SystemTime>,
    },
    /// The store opened, but what is in it could not be read as a file system.
    #[error("{store}: cannot be mounted: {why}")]
    Content { store: PathBuf, why: String },
    /// DIR is missing.
    #[error("{0}: no such directory to mount at: make it with 'mkdir -p {0}'")]
    NoMountPoint(PathBuf),
    /// DIR is something else.
    #[error("{0}: not a directory: a store is mounted at a directory")]
    MountPointNotDirectory(PathBuf),
    /// Mounting would hide the store's own file.
    #[error("{store}: lies inside {dir}, which the mount would hide: mount it elsewhere, or move the store")]
    StoreInside { store: PathBuf, dir: PathBuf },
    /// Mounting would hide the disk cache, which then could not be read without asking ourselves.
    #[error("{cache}: the disk cache lies inside {dir}, which the mount would hide: put it elsewhere")]
    CacheInside { cache: PathBuf, dir: PathBuf },
    /// Mounting would hide the socket.
    #[error("{socket}: the socket lies inside {dir}, which the mount would hide: put it elsewhere")]
    SocketInside { socket: PathBuf, dir: PathBuf },
    /// A dead mount that is not ours.
    #[error("{dir}: a {fs_type} mount there is dead (its server is gone): detach it with 'umount -l {dir}'")]
    ForeignDeadMount { dir: PathBuf, fs_type: String },
    /// The kernel has no FUSE.
    #[error("/dev/fuse: {0}: load the kernel's module with 'modprobe fuse' (in a container: pass the device in)")]
    NoDevice(std::io::Error),
    /// An ordinary user, and no helper.
    #[error("fusermount3: {0}: an ordinary user needs it to mount: install the package 'fuse3', or mount as root")]
    NoFusermount(std::io::Error),
    /// The helper refused.
    #[error("{dir}: fusermount3 refused: {why}")]
    FusermountRefused { dir: PathBuf, why: String },
    /// umount, and something else is mounted over it.
    #[error("{0}: something else is mounted over it: unmount that first, with 'umount {0}'")]
    Hidden(PathBuf),
    /// umount, and something is open there.
    #[error(
        "{0}: busy: programs have files or working directories there ('fuser -vm {0}' lists them): end them, or use --force"
    )]
    Busy(PathBuf),
    /// remount as read-only, and something is open for writing there.
    #[error("{0}: busy: programs have files open for writing there ('fuser -vm {0}' lists them): end them first")]
    OpenForWriting(PathBuf),
    /// umount, and nothing of ours is there.
    #[error("{0}: no kivafs mount there ('findmnt -t fuse.kivafs' lists them)")]
    NotMounted(PathBuf),
    /// umount of a mount whose server had died.
    #[error("{0}: was dead (its server is gone), is now detached: what was not yet durable is lost")]
    WasDead(PathBuf),
    /// fusermount3 does not know how to.
    #[error("{0}: only root may remount: unmount it, and mount it again")]
    RemountByUser(PathBuf),
    /// umount of one of several places where it is mounted.
    #[error("{dir}: unmounted, but the store is still mounted {place}: it is served until that is unmounted, too")]
    StillMounted {
        dir: PathBuf,
        /// `at /srv/notes`
        place: String,
    },
    /// The same store is mounted there already.
    #[error("{store}: mounted at {dir} already: use {dir}/PATH")]
    AlreadyMounted { store: PathBuf, dir: PathBuf },
    /// Who only reads has it; so nobody may write.
    #[error("{store}: mounted at {dir} for reading: unmount that first, with 'umount {dir}'")]
    HeldByReader { store: PathBuf, dir: PathBuf },
    /// Its mount was detached by hand, but files are open there.
    #[error(
        "{store}: was detached from {dir}, but pid {pid} still serves what is open there: \
         end the programs that have it open, or that process, with 'kill {pid}'"
    )]
    HeldDetached { store: PathBuf, dir: PathBuf, pid: u32 },
    /// The server ended, but not everything is durable.
    #[error("{dir}: unmounted, but not everything is durable: {why}")]
    NotDurable { dir: PathBuf, why: String },
    /// The server's verdict did not come.
    #[error("{dir}: unmounted, but whether everything is durable is not known: {why}")]
    Unknown { dir: PathBuf, why: String },
    /// The store failed while it was made durable.
    #[error("{store}: not everything is durable: {error}")]
    Close { store: PathBuf, error: StoreError },
    /// The process that was started to serve ended early and has said why.
    #[error("the serving process ended with exit code {0}")]
    Relayed(u8),
    /// SIGTERM or SIGINT before anything was mounted.
    #[error("interrupted: nothing was mounted")]
    Interrupted,
    /// The system refused something.
    #[error("{what}: {error}")]
    System { what: String, error: std::io::Error },
}

impl LifeError {
    /// The system refused `what`.
    pub(crate) fn system(what: impl Into<String>, error: impl Into<std::io::Error>) -> LifeError {
        LifeError::System { what: what.into(), error: error.into() }
    }
}
