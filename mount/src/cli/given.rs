//! STORE and its options, as they stand on the command line of any command.

use crate::cli::failure::Failure;
use crate::cli::options::Unknown;
use crate::cli::place;
use crate::cli::store_options::parse_store_options;
use crate::cli::words::{StoreWords, TakeoverWords};
use crate::life::place::Place;
use crate::life::plan::StoreOptions;
use std::ffi::OsString;

/// A store, and how it is opened.
pub struct Given {
    pub place: Place,
    pub options: StoreOptions,
}

/// STORE and what stands after `-o`.
pub fn store(words: &StoreWords) -> Result<Given, Failure> {
    let options = parse_store_options(texts(&words.options)?).map_err(Failure::Usage)?;
    Ok(Given { place: place::store(&words.store, &options, Unknown::Refuse)?, options })
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

/// Lists of options as text.
pub fn texts(lists: &[OsString]) -> Result<Vec<&str>, Failure> {
    let not_text = |list: &OsString| Failure::Usage(format!("options '{}' are not UTF-8", list.to_string_lossy()));
    lists.iter().map(|list| list.to_str().ok_or_else(|| not_text(list))).collect()
}
