//! create, mount, umount.

use crate::cli::failure::Failure;
use crate::cli::given::{self, Given, takeover};
use crate::cli::mount_words::{HelperMount, HelperUmount};
use crate::cli::options::{Unknown, parse_options};
use crate::cli::place;
use crate::cli::words::{CreateWords, MountWords, UmountWords};
use crate::fs::{FileSystem, Name, coarse_now, names};
use crate::life::background::{self, Ready};
use crate::life::drain::close;
use crate::life::place::Place;
use crate::life::plan::{MountOptions, Plan, StoreOptions};
use crate::life::supervisor::Supervisor;
use crate::life::unmount::{Manner, Unmounted, unmount};
use crate::life::{LifeError, attach, serve};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

pub fn create(words: &CreateWords) -> Result<(), Failure> {
    let Given { place, options } = given::store(&words.store)?;
    let Some(dir) = &words.kvlds_dir else { return Ok(place.create(&options.for_creating(words.size))?) };
    let dir = dir.as_os_str().as_bytes();
    // Before anything is made: what lies in a bucket stays.
    for name in names(dir) {
        Name::to_make(name)
            .map_err(|error| Failure::Usage(format!("--kvlds-dir: {}: {error}", name.escape_ascii())))?;
    }
    place.create(&options.for_creating(words.size))?;
    choose_key_dir(&place, &options, dir).map_err(|why| {
        // It may be somebody else's by now: so it is not taken back.
        Failure::Failed(format!("{place}: was made, but its keys may be in its root: {why}: remove it and try again"))
    })
}

fn choose_key_dir(place: &Place, options: &StoreOptions, dir: &[u8]) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let store = Arc::new(place.open(&options.for_opening()).map_err(|error| text(&error))?);
    let chosen = FileSystem::open(store.clone(), coarse_now)
        .map_err(|error| text(&error))
        .and_then(|mut fs| fs.choose_key_dir(dir).map_err(|error| text(&error)));
    let closed = close(place, store, options.timeout, &mut Supervisor::nobody()).map_err(|error| text(&error));
    chosen.and(closed)
}

pub fn mount(words: &MountWords) -> Result<(), Failure> {
    let unknown = if words.sloppy { Unknown::Ignore } else { Unknown::Refuse };
    let lists = &words.store.options;
    let plan = plan(&words.store.store, &words.dir, lists, unknown)?;
    let plan = Plan { create: words.create, takeover: takeover(&words.takeover, &plan.store)?, ..plan };
    if plan.takeover && plan.options.read_only {
        return Err(Failure::Usage("--takeover: who mounts with 'ro' takes nothing: leave it out".into()));
    }
    match (words.serve_in_background, words.foreground) {
        _ if plan.options.remount => remount(&plan),
        (true, _) => Ok(serve::serve(&plan, Ready::in_background()?)?),
        (false, true) => Ok(serve::serve(&plan, Ready::Foreground)?),
        (false, false) => start(&plan, lists, unknown),
    }
}

/// As `mount.kivafs`.
pub fn by_helper(asked: HelperMount) -> Result<(), Failure> {
    let plan = plan(&asked.store, &asked.dir, &asked.options, asked.unknown)?;
    match asked.fake {
        true => {}
        false if plan.options.remount => remount(&plan)?,
        false => start(&plan, &asked.options, asked.unknown)?,
    }
    if asked.verbose {
        let done = match (asked.fake, plan.options.remount) {
            (true, _) => "would be mounted",
            (false, true) => "remounted",
            (false, false) => "mounted",
        };
        println!("kivafs: {} {done} at {}", plan.store, plan.dir.display());
    }
    Ok(())
}

fn plan(store: &Path, dir: &Path, lists: &[OsString], unknown: Unknown) -> Result<Plan, Failure> {
    let options: MountOptions = parse_options(given::texts(lists)?, unknown).map_err(Failure::Usage)?;
    let store = place::store(store, &options.store, unknown)?;
    Ok(Plan { store, dir: place::dir(dir)?, create: false, takeover: false, options })
}

/// Starts the serving process, with paths that mean the same there.
fn start(plan: &Plan, lists: &[OsString], unknown: Unknown) -> Result<(), Failure> {
    let mut words: Vec<&OsStr> = vec!["mount".as_ref(), "--serve-in-background".as_ref()];
    let flags = [(plan.create, "--create"), (plan.takeover, "--takeover"), (unknown == Unknown::Ignore, "--sloppy")];
    words.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| OsStr::new(flag)));
    for list in lists {
        words.extend([OsStr::new("-o"), list]);
    }
    let store = plan.store.name();
    words.extend([OsStr::new("--"), store.as_os_str(), plan.dir.as_os_str()]);
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    Ok(background::start(&words)?)
}

pub fn umount(words: &UmountWords) -> Result<(), Failure> {
    let manner = if words.force { Manner::Forced } else { Manner::Orderly };
    let Unmounted { store, requests } = unmount(&place::target(&words.dir)?, manner)?;
    if let Some(requests) = requests {
        println!("{store}: {requests}");
    }
    Ok(())
}

/// Changes what can be changed of a mount that is there, and says what can't.
fn remount(plan: &Plan) -> Result<(), Failure> {
    let unchanged = attach::unchanged_by_remount(&plan.dir, &plan.options)?;
    attach::remount(&plan.dir, &plan.options)?;
    if !unchanged.is_empty() {
        let names = unchanged.join(", ");
        eprintln!(
            "kivafs: {}: a remount does not change this: {names}: unmount it, and mount it again",
            plan.dir.display()
        );
    }
    Ok(())
}

/// As `umount.kivafs`.
pub fn umount_as(asked: HelperUmount) -> Result<(), Failure> {
    match unmount(&place::target(&asked.place)?, asked.manner) {
        // Like umount(8) of anything that is mounted more than once: what was asked for is done.
        Err(LifeError::StillMounted { .. }) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}
