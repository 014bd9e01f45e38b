//! Is DIR a place to mount at?

use crate::kvlds::server::Address;
use crate::life::plan::Plan;
use crate::life::{LifeError, detach, mountinfo};
use std::path::Path;

/// Looks at the plan's DIR. Changes nothing but this: a dead mount of ours there is detached, which
/// `tell` is told.
pub fn prepare(plan: &Plan, tell: &mut dyn FnMut(String)) -> Result<(), LifeError> {
    let dir = plan.dir.as_path();
    detach_dead(dir, tell)?;
    let meta = std::fs::metadata(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => LifeError::NoMountPoint(dir.into()),
        std::io::ErrorKind::NotADirectory => LifeError::MountPointNotDirectory(dir.into()),
        _ => LifeError::system(dir.display().to_string(), error),
    })?;
    if !meta.is_dir() {
        return Err(LifeError::MountPointNotDirectory(dir.into()));
    }
    if plan.options.read_only && is_mounted_there(plan)? {
        return Err(LifeError::AlreadyMounted { store: plan.store.name(), dir: dir.into() });
    }
    if plan.store.lies_in(dir) {
        return Err(LifeError::StoreInside { store: plan.store.name(), dir: dir.into() });
    }
    if let Some(Address::Unix(socket)) = &plan.options.kvlds
        && lies_in(socket, dir)
    {
        return Err(LifeError::SocketInside { socket: socket.clone(), dir: dir.into() });
    }
    match &plan.options.store.bucket.disk_cache {
        Some((cache, _)) if lies_in(cache, dir) => {
            Err(LifeError::CacheInside { cache: cache.clone(), dir: dir.into() })
        }
        _ => Ok(()),
    }
}

/// Those who only read do not lock each other out: the same once more would only hide the first.
fn is_mounted_there(plan: &Plan) -> Result<bool, LifeError> {
    let top = mountinfo::top_at(&plan.dir)?;
    Ok(top.is_some_and(|mount| mount.is_ours() && mountinfo::names_store(&mount.source, &plan.store.name())))
}

/// Does the path, which need not be there yet, lie in the directory? Links are followed.
fn lies_in(path: &Path, dir: &Path) -> bool {
    let there = path.ancestors().find_map(|part| part.canonicalize().ok());
    path.starts_with(dir) || there.is_some_and(|there| there.starts_with(dir))
}

/// What lies in DIR and will be hidden is worth a word.
pub fn warn_if_not_empty(dir: &Path, tell: &mut dyn FnMut(String)) {
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        tell(format!("{}: not empty: what is there is hidden while the store is mounted", dir.display()));
    }
}

fn detach_dead(dir: &Path, tell: &mut dyn FnMut(String)) -> Result<(), LifeError> {
    // Dead mounts may lie on each other: each mount over a dead one that was forced adds one.
    while let Some(mount) = mountinfo::top_at(dir)?
        && mountinfo::is_dead(dir)
    {
        if !mount.is_ours() {
            return Err(LifeError::ForeignDeadMount { dir: dir.into(), fs_type: mount.fs_type });
        }
        detach::lazily_behind(dir, mount.device)?;
        tell(format!(
            "{}: detached a dead mount of {} (its server was gone)",
            dir.display(),
            mount.source.to_string_lossy()
        ));
    }
    Ok(())
}
