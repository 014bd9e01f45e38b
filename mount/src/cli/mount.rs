//! create, mount, umount.

use crate::cli::failure::Failure;
use crate::cli::helper::{HelperMount, HelperUmount};
use crate::cli::options::{Unknown, parse_options};
use crate::cli::place;
use crate::cli::words::{CreateWords, MountWords, UmountWords};
use crate::life::background::{self, Ready};
use crate::life::plan::{MountOptions, Plan};
use crate::life::unmount::{Manner, unmount};
use crate::life::{attach, serve};
use kivafs::store::{CreateOptions, Store};
use std::ffi::{OsStr, OsString};
use std::path::Path;

pub fn create(words: &CreateWords) -> Result<(), Failure> {
    let store = place::store(&words.store)?;
    Ok(Store::create_at(&store, &CreateOptions { size: words.size, ..CreateOptions::default() })?)
}

pub fn mount(words: &MountWords) -> Result<(), Failure> {
    let unknown = if words.sloppy { Unknown::Ignore } else { Unknown::Refuse };
    let plan = plan(&words.store, &words.dir, &words.options, unknown, words.create)?;
    if words.takeover {
        return Err(Failure::Usage(
            "--takeover: a store in a local file is locked by its holder, and free as soon as that ends: \
             there is nothing to take over"
                .into(),
        ));
    }
    match (words.serve_in_background, words.foreground) {
        _ if plan.options.remount => Ok(attach::remount(&plan.dir, &plan.options)?),
        (true, _) => Ok(serve::serve(&plan, Ready::in_background()?)?),
        (false, true) => Ok(serve::serve(&plan, Ready::Foreground)?),
        (false, false) => start(&plan, &words.options, unknown),
    }
}

/// As `mount.kivafs`.
pub fn by_helper(asked: HelperMount) -> Result<(), Failure> {
    let plan = plan(&asked.store, &asked.dir, &asked.options, asked.unknown, false)?;
    match asked.fake {
        true => Ok(()),
        false if plan.options.remount => Ok(attach::remount(&plan.dir, &plan.options)?),
        false => start(&plan, &asked.options, asked.unknown),
    }
}

fn plan(store: &Path, dir: &Path, lists: &[OsString], unknown: Unknown, create: bool) -> Result<Plan, Failure> {
    let options = options(lists, unknown)?;
    Ok(Plan { store: place::store(store)?, dir: place::dir(dir)?, create, options })
}

fn options(lists: &[OsString], unknown: Unknown) -> Result<MountOptions, Failure> {
    let mut texts = Vec::with_capacity(lists.len());
    for list in lists {
        let not_text = || Failure::Usage(format!("options '{}' are not UTF-8", list.to_string_lossy()));
        texts.push(list.to_str().ok_or_else(not_text)?);
    }
    parse_options(texts, unknown).map_err(Failure::Usage)
}

/// Starts the serving process, with paths that mean the same there.
fn start(plan: &Plan, lists: &[OsString], unknown: Unknown) -> Result<(), Failure> {
    let mut words: Vec<&OsStr> = vec!["mount".as_ref(), "--serve-in-background".as_ref()];
    if plan.create {
        words.push("--create".as_ref());
    }
    if unknown == Unknown::Ignore {
        words.push("--sloppy".as_ref());
    }
    for list in lists {
        words.extend([OsStr::new("-o"), list]);
    }
    words.extend([OsStr::new("--"), plan.store.as_os_str(), plan.dir.as_os_str()]);
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    Ok(background::start(&words)?)
}

pub fn umount(words: &UmountWords) -> Result<(), Failure> {
    let manner = if words.force { Manner::Forced } else { Manner::Orderly };
    umount_as(HelperUmount { place: words.dir.clone(), manner })
}

/// As `umount.kivafs`.
pub fn umount_as(asked: HelperUmount) -> Result<(), Failure> {
    Ok(unmount(&asked.place, asked.manner)?)
}
