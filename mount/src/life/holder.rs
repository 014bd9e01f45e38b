//! Opening a store that may still be held by a process that is about to end.
//!
//! umount(2) returns before the server has made everything durable: `umount X; mount X` meets a
//! store that is held. Such a holder is waited for. A holder that serves is not, nor one on another
//! machine, of which nothing is known but what it wrote down when it came.
//!
//! In a local file a holder writes down that it drains. In a bucket that would be one more request,
//! so it says so by the name of its process, which whoever is on the same machine can read.

use crate::kvlds::server::Address;
use crate::life::place::Place;
use crate::life::progress::Progress;
use crate::life::{LifeError, mountinfo};
use kivafs::store::{Holder, OpenError, Store};
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for a holder whose mount is gone and who has not announced its end: it is
/// about to (this takes milliseconds), or it serves files that are open in a mount detached by hand.
const UNANNOUNCED_MAX: Duration = Duration::from_secs(10);

/// How often to look whether it is worth to look at the store.
const PAUSE: Duration = Duration::from_millis(10);

/// What stands before a socket, where others have a directory, which begins with '/'.
const SOCKET: &str = "kvlds:";

/// The name of a process that drains: at most 15 bytes.
const DRAINING: &CStr = c"kivafs-draining";

/// Tells others that no new work comes. To be called by the process's first thread, whose name is
/// that of the process.
pub fn announce_draining(store: &Store) {
    store.announce_draining();
    if let Err(error) = nix::sys::prctl::set_name(DRAINING) {
        tracing::warn!("cannot tell others that this process drains: {error}");
    }
}

/// Runs `open` until the store is free, or held by who serves it. `pause` waits, and may give up.
pub fn patiently<T>(
    place: &Place,
    mut open: impl FnMut() -> Result<T, OpenError>,
    pause: &mut dyn FnMut(Duration) -> Result<(), LifeError>,
) -> Result<T, LifeError> {
    let mut progress = Progress::start();
    let mut unannounced: Option<Instant> = None;
    loop {
        let holder = match open() {
            Err(OpenError::InUse { holder, .. }) if is_elsewhere(&holder) => {
                let last_commit = place.info().ok().map(|info| info.committed_at);
                return Err(LifeError::HeldElsewhere { store: place.name(), holder, last_commit });
            }
            Err(OpenError::InUse { holder, .. }) if drains(&holder) => holder,
            Err(OpenError::InUse { holder, path })
                if unannounced.get_or_insert_with(Instant::now).elapsed() < UNANNOUNCED_MAX =>
            {
                if serves(&holder, place) {
                    return Err(OpenError::InUse { path, holder }.into());
                }
                if let Some(dir) = read_at(&holder, place) {
                    return Err(LifeError::HeldByReader { store: path, dir });
                }
                holder
            }
            Err(OpenError::InUse { holder: Holder { pid, serving_at: Some(dir), .. }, path }) if pid != 0 => {
                return Err(LifeError::HeldDetached { store: path, dir, pid });
            }
            done => return Ok(done?),
        };
        let next_look = Instant::now() + place.look_interval();
        loop {
            progress.tick(&format!("{place}: waiting for pid {}, which makes its last changes durable", holder.pid));
            pause(PAUSE)?;
            if Instant::now() >= next_look || !Path::new(&format!("/proc/{}", holder.pid)).exists() {
                break;
            }
        }
    }
}

/// A pause for who may be interrupted at any time.
pub fn sleep(time: Duration) -> Result<(), LifeError> {
    std::thread::sleep(time);
    Ok(())
}

/// Nothing that happens on this machine frees the store.
fn is_elsewhere(holder: &Holder) -> bool {
    holder.remote && !holder.here
}

/// Has the holder said that it will be gone soon?
fn drains(holder: &Holder) -> bool {
    let says_so = || {
        let name = std::fs::read(format!("/proc/{}/comm", holder.pid));
        name.is_ok_and(|name| name.trim_ascii_end() == DRAINING.to_bytes())
    };
    holder.draining || (holder.remote && holder.here && says_so())
}

/// What a holder writes down who serves keys without a mount. Nobody may have to look at the place to
/// tell it from a mount: whoever looks at one whose server sleeps waits for that.
pub fn place_of_socket(address: &Address) -> PathBuf {
    format!("{SOCKET}{address}").into()
}

/// The socket at which a holder serves keys, if it does that and not a mount.
pub fn socket_of(holder: &Holder) -> Option<&str> {
    holder.serving_at.as_ref()?.to_str()?.strip_prefix(SOCKET)
}

/// Where a store in a file is mounted for reading, if that is what holds it: such a holder writes
/// nothing down.
fn read_at(holder: &Holder, store: &Place) -> Option<PathBuf> {
    if holder.pid != 0 || store.stays_held() {
        return None;
    }
    let mounts = mountinfo::read().ok()?;
    let name = store.name();
    let ours = mounts.into_iter().rfind(|mount| mount.is_ours() && mountinfo::names_store(&mount.source, &name));
    ours.map(|mount| mount.dir)
}

/// Is the holder's mount still there? In doubt, yes.
fn serves(holder: &Holder, store: &Place) -> bool {
    // Without a mount it is one of the short commands, which will be done soon.
    let Some(dir) = &holder.serving_at else { return false };
    // Until it says that it drains.
    if socket_of(holder).is_some() {
        return true;
    }
    let store = store.name();
    match mountinfo::read_of_process(holder.pid).or_else(|_| mountinfo::read()) {
        Ok(mounts) => mounts
            .iter()
            .any(|mount| mount.is_ours() && &mount.dir == dir && mountinfo::names_store(&mount.source, &store)),
        Err(_) => true,
    }
}
