//! Opening a store that may still be held by a process that is about to end.
//!
//! umount(2) returns before the server has made everything durable: `umount X; mount X` meets a
//! store that is held. Such a holder is waited for. A holder that serves is not.

use crate::life::progress::Progress;
use crate::life::{LifeError, mountinfo};
use kivafs::store::{Holder, OpenError};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait for a holder whose mount is gone and who has not announced its end: it is
/// about to (this takes milliseconds), or it serves files that are open in a mount detached by hand.
const UNANNOUNCED_MAX: Duration = Duration::from_secs(10);

/// How often to look.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs `open` until the store is free, or held by who serves it. `pause` waits, and may give up.
pub fn patiently<T>(
    path: &Path,
    mut open: impl FnMut() -> Result<T, OpenError>,
    pause: &mut dyn FnMut(Duration) -> Result<(), LifeError>,
) -> Result<T, LifeError> {
    let mut progress = Progress::start();
    let mut unannounced: Option<Instant> = None;
    loop {
        let holder = match open() {
            Err(OpenError::InUse { holder, .. }) if holder.draining => holder,
            Err(OpenError::InUse { holder, path })
                if unannounced.get_or_insert_with(Instant::now).elapsed() < UNANNOUNCED_MAX =>
            {
                if serves(&holder, &path) {
                    return Err(OpenError::InUse { path, holder }.into());
                }
                holder
            }
            done => return Ok(done?),
        };
        progress.tick(&format!(
            "{}: waiting for pid {}, which makes its last changes durable",
            path.display(),
            holder.pid
        ));
        pause(PAUSE)?;
    }
}

/// A pause for who may be interrupted at any time.
pub fn sleep(time: Duration) -> Result<(), LifeError> {
    std::thread::sleep(time);
    Ok(())
}

/// Is the holder's mount still there? In doubt, yes.
fn serves(holder: &Holder, store: &Path) -> bool {
    // Without a mount it is one of the short commands, which will be done soon.
    let Some(dir) = &holder.serving_at else { return false };
    match mountinfo::read_of_process(holder.pid).or_else(|_| mountinfo::read()) {
        Ok(mounts) => mounts
            .iter()
            .any(|mount| mount.is_ours() && &mount.dir == dir && mountinfo::names_store(&mount.source, store)),
        Err(_) => true,
    }
}
