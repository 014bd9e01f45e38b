//! A page as stored: the format. Pure.

use thiserror::Error;

/// Why a payload is not a page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A newer kivafs wrote it.
    #[error("byte {offset}: {what} {found} is not known to this version of kivafs")]
    Newer {
        /// Where in the payload.
        offset: usize,
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// No kivafs wrote it.
    #[error("byte {offset}: {what}: expected {expected}, found {found}")]
    Damaged {
        /// Where in the payload.
        offset: usize,
        /// Which field.
        what: &'static str,
        /// What it could have been.
        expected: String,
        /// What it is.
        found: u64,
    },
}
