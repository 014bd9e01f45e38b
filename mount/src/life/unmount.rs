//! `kivafs umount`: detach, then wait until the server has said that everything is durable.

use crate::life::progress::Progress;
use crate::life::verdict::{Heard, Waiter};
use crate::life::{LifeError, detach, mountinfo};
use std::path::Path;
use std::time::Duration;

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Unless something is open there.
    Orderly,
    /// For names now; for good when nothing is open there any more. Not waited for.
    Lazy,
    /// Ending whatever goes on there.
    Forced,
}

/// How long a forced end waits for the verdict: the server may be what is stuck.
const FORCED_WAIT_MAX: Duration = Duration::from_secs(10);

/// Unmounts what is mounted at `place`, or from the store `place`. Ok: everything is durable (but
/// after [`Manner::Lazy`], where that comes later).
pub fn unmount(place: &Path, manner: Manner) -> Result<(), LifeError> {
    let not_mounted = || LifeError::NotMounted(place.into());
    let listed = mountinfo::as_listed(place).map_err(|_| not_mounted())?;
    let mount = mountinfo::read()?
        .into_iter()
        .rfind(|mount| mount.dir == listed || (mount.is_ours() && mountinfo::names_store(&mount.source, &listed)))
        .filter(|mount| mount.is_ours())
        .ok_or_else(not_mounted)?;
    let dir = mount.dir.as_path();
    // What lies on top is what would be unmounted.
    if mountinfo::top_at(dir)?.is_none_or(|top| top.device != mount.device) {
        return Err(LifeError::Hidden(dir.into()));
    }
    let waiter = Waiter::connect(&mount);
    // Only a mount without a server is looked into: one that is stuck would hold us up.
    if waiter.is_none() && mountinfo::is_dead(dir) {
        detach::lazily(dir)?;
        return if manner == Manner::Forced { Ok(()) } else { Err(LifeError::WasDead(dir.into())) };
    }
    match manner {
        Manner::Orderly => {
            detach::now(dir)?;
            verdict(dir, waiter, manner)
        }
        Manner::Lazy => detach::lazily(dir),
        Manner::Forced => {
            let aborted = detach::abort(mount.device);
            detach::lazily(dir)?;
            match verdict(dir, waiter, manner) {
                // What can't be aborted (an ordinary user may lack fusectl) may still end by itself.
                Err(LifeError::Unknown { .. }) if aborted.is_err() => aborted,
                heard => heard,
            }
        }
    }
}

fn verdict(dir: &Path, waiter: Option<Waiter>, manner: Manner) -> Result<(), LifeError> {
    match waiter {
        Some(waiter) => wait(dir, waiter, manner),
        None => {
            Err(LifeError::Unknown { dir: dir.into(), why: "its server can't be asked from here (see its log)".into() })
        }
    }
}

fn wait(dir: &Path, mut waiter: Waiter, manner: Manner) -> Result<(), LifeError> {
    let mut progress = Progress::start();
    loop {
        match waiter.hear(Duration::from_millis(200)) {
            Heard::Durable => return Ok(()),
            Heard::NotDurable(why) => return Err(LifeError::NotDurable { dir: dir.into(), why }),
            Heard::Died => {
                let why = format!("its server (pid {}) died", waiter.pid);
                return Err(LifeError::Unknown { dir: dir.into(), why });
            }
            Heard::Nothing if manner == Manner::Forced && progress.elapsed() >= FORCED_WAIT_MAX => {
                let why = format!("its server (pid {}) is still at it", waiter.pid);
                return Err(LifeError::Unknown { dir: dir.into(), why });
            }
            Heard::Nothing => progress.tick(&format!(
                "{}: unmounted; waiting for pid {} to make everything durable",
                dir.display(),
                waiter.pid
            )),
        }
    }
}
