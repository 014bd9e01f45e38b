//! STORE and DIR made absolute, before anything changes the working directory.

use crate::cli::failure::Failure;
use crate::life::mountinfo;
use std::path::{Path, PathBuf};

/// STORE. Links are followed, so that one store has one name for everybody; a store that is yet
/// to be made has the name that it will have.
pub fn store(given: &Path) -> Result<PathBuf, Failure> {
    if let Some(scheme) = given.to_str().and_then(|text| text.split_once("://")).map(|(scheme, _)| scheme) {
        return Err(Failure::Failed(format!(
            "{}: this version has no stores in {scheme}: give the path of a local file",
            given.display()
        )));
    }
    let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", given.display()));
    match given.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(given).map_err(failed)?;
            match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                _ => Ok(absolute),
            }
        }
        done => done.map_err(failed),
    }
}

/// DIR, as the list of mounts has it. One that can't be looked at is told of when it is used.
pub fn dir(given: &Path) -> Result<PathBuf, Failure> {
    mountinfo::as_listed(given)
        .or_else(|_| std::path::absolute(given))
        .map_err(|error| Failure::Failed(format!("{}: {error}", given.display())))
}
