//! Putting the program in place, with all that belongs to it; and taking it away again.
//!
//! # Contract
//!
//! * **Below one prefix**, but for two things that are looked for in one place only: mount(8) finds its
//!   helpers in `/sbin`, and people look for settings in `/etc`. With a root, all of it goes below that
//!   root, as it will lie when the root is `/`: for who makes packages.
//! * **Idempotent.** What is there already, as it should be, is left alone; the answer says of each file
//!   what was done. What is replaced is replaced whole: a program that runs goes on with the old file.
//! * **Not ours, not touched.** A setting that somebody changed stays, at both ends. A name that is taken
//!   by a link of somebody else's is an error at installation, before anything is changed, and stays at
//!   uninstallation.
//! * **Nothing is started or stopped**, and no mount ends.
//! * Texts are made from the words of the command line, which the caller hands over: so they cannot say
//!   anything else than `--help`.
//!
//! In reading order:
//!
//! | file | job |
//! |---|---|
//! | `layout.rs` | what lies where |
//! | `service.rs` | the systemd unit, and the settings that it reads |
//! | `pages.rs` | man pages of the commands |
//! | `mount_page.rs` | and of mount.kivafs(8) |
//! | `help_text.rs` | lists as `--help` has them, for man |
//! | `put.rs` | files and links: made, compared, removed |

mod help_text;
pub mod layout;
mod mount_page;
mod pages;
pub mod put;
mod service;

use layout::{Layout, Texts};
use put::{Done, PutError};
use std::path::PathBuf;

/// Puts everything in place. What was done with each file, in order.
pub fn install(layout: &Layout, texts: Texts) -> Result<Vec<(PathBuf, Done)>, PutError> {
    let items = layout.items(texts).map_err(|error| PutError { path: layout.binary(), error })?;
    for item in &items {
        put::may_be_put(&layout.root, item)?;
    }
    items.iter().map(|item| Ok((item.path.clone(), put::put(&layout.root, item)?))).collect()
}

/// Takes everything away that is ours.
pub fn uninstall(layout: &Layout, texts: Texts) -> Result<Vec<(PathBuf, Done)>, PutError> {
    let items = layout.items(texts).map_err(|error| PutError { path: layout.binary(), error })?;
    let done: Result<Vec<_>, PutError> =
        items.iter().rev().map(|item| Ok((item.path.clone(), put::remove(&layout.root, item)?))).collect();
    put::remove_if_empty(&layout.root, layout::SETTINGS);
    done
}
