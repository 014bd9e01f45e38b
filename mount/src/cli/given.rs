//! STORE and its options, as they stand on the command line of any command.

use crate::cli::failure::Failure;
use crate::cli::options::Unknown;
use crate::cli::place;
use crate::cli::store_options::parse_store_options;
use crate::cli::words::{SourceWords, StoreWords, TakeoverWords};
use crate::kvlds::server::Address;
use crate::life::place::Place;
use crate::life::plan::StoreOptions;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A store, and how it is opened.
pub struct Given {
    pub place: Place,
    pub options: StoreOptions,
}

/// STORE and what stands after `-o`.
pub fn store(words: &StoreWords) -> Result<Given, Failure> {
    store_at(&words.store, &words.options)
}

fn store_at(store: &Path, options: &[OsString]) -> Result<Given, Failure> {
    let options = parse_store_options(texts(options)?).map_err(Failure::Usage)?;
    Ok(Given { place: place::store(store, &options, Unknown::Refuse)?, options })
}

impl SourceWords {
    /// The server that is to be asked, if it is one.
    pub fn server(&self) -> Option<Address> {
        self.kvlds.as_deref().map(Address::parse)
    }

    /// NAME, which then stands where STORE would.
    pub fn name(&self) -> Option<&OsStr> {
        self.store.as_deref().map(Path::as_os_str)
    }

    /// The store, if it is no server.
    pub fn given(&self) -> Result<Given, Failure> {
        let store = self.store.as_deref().expect("clap asks for it where there is no --kvlds");
        store_at(store, &self.options)
    }
}

/// `--takeover`: is it asked for? A local file's lock is gone with its holder, so that asking makes
/// no sense.
pub fn takeover(words: &TakeoverWords, place: &Place) -> Result<bool, Failure> {
    if words.takeover && !place.stays_held() {
        return Err(Failure::Usage(
            "--takeover: a store in a local file is locked by its holder, and free as soon as that ends: \
             there is nothing to take over"
                .into(),
        ));
    }
    Ok(words.takeover)
}

/// `--takeover` beside `--kvlds`.
pub fn takeover_of_server(words: &TakeoverWords) -> Result<(), Failure> {
    if words.takeover {
        let why = "--takeover: with --kvlds the store stays with its server: there is nothing to take over";
        return Err(Failure::Usage(why.into()));
    }
    Ok(())
}

/// Lists of options as text.
pub fn texts(lists: &[OsString]) -> Result<Vec<&str>, Failure> {
    let not_text = |list: &OsString| Failure::Usage(format!("options '{}' are not UTF-8", list.to_string_lossy()));
    lists.iter().map(|list| list.to_str().ok_or_else(|| not_text(list))).collect()
}
