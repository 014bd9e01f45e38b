//! The process that serves the ceiling, in the foreground.

use crate::bench::ceiling::requests::Memory;
use crate::fs::Caller;
use crate::life::signals::{Signals, Wake};
use crate::life::{LifeError, detach, mountinfo, session};
use nix::mount::MsFlags;
use nix::unistd::{getgid, getuid};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The type under which it is listed: not that of mounts with a store, which `kivafs umount` knows.
const FS_TYPE: &str = "fuse.kivafs-ceiling";

/// Mounts an empty file system in memory at `dir`, which is absolute, says "ready" on stdout, and serves
/// until it is unmounted or a signal comes. Everything in it is then gone.
pub fn serve(dir: &Path, threads: usize) -> Result<(), LifeError> {
    let signals = Signals::block()?;
    let owner = Caller { uid: getuid().as_raw(), gid: getgid().as_raw(), umask: 0 };
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let fuse = session::mount_as_root(Path::new("memory"), dir, FS_TYPE, flags, true)?;
    let mounted = mountinfo::top_at(dir)?.ok_or_else(|| LifeError::NotMounted(dir.into()))?;
    let session = session::greet(Memory::new(owner), fuse, threads, dir)?;
    session::read_ahead(mounted.device);
    // Its other end is closed when the session is over.
    let (over, its) = UnixStream::pair().map_err(|error| LifeError::system("socketpair", error))?;
    let running = std::thread::spawn(move || {
        let done = session.run();
        drop(its);
        done
    });
    println!("ready");
    // Who does not listen has the mount all the same.
    let _ = std::io::stdout().flush();
    let woken = loop {
        match signals.wait(&[over.as_fd()], None)? {
            Wake::TimeOut => {}
            woken => break woken,
        }
    };
    if woken == Wake::Stop {
        return detach::lazily(dir);
    }
    match running.join().expect("a session does not panic") {
        Ok(()) => Ok(()),
        Err(error) => Err(LifeError::system(format!("{}: the session ended", dir.display()), error)),
    }
}
