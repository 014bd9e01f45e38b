//! A change of one key.

use super::{If, KeysError, Result, VALUE_MAX, name};
use crate::fs::KeyChange;
use bytes::Bytes;

/// A change of one key: what its value is to be, or that there is to be none, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    key: Bytes,
    only: If,
    value: Option<Bytes>,
}

impl Change {
    /// The key is to have this value.
    pub fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Change {
        Change { key: key.into(), only: If::Always, value: Some(value.into()) }
    }

    /// There is to be no such key. Where there is none already, it is as it was to be:
    /// [`Outcome::Done`](super::Outcome::Done).
    pub fn delete(key: impl Into<Bytes>) -> Change {
        Change { key: key.into(), only: If::Always, value: None }
    }

    /// But only if that is so; else it is [`Outcome::Not`](super::Outcome::Not), and nothing changes.
    pub fn only(self, only: If) -> Change {
        Change { only, ..self }
    }

    /// As the file system takes it.
    pub(super) fn checked(&self) -> Result<KeyChange> {
        let length = self.value.as_ref().map_or(0, Bytes::len);
        if length > VALUE_MAX {
            return Err(KeysError::TooLong { what: "value", length, most: VALUE_MAX });
        }
        Ok(KeyChange { key: name(&self.key)?, only: self.only.clone(), value: self.value.clone() })
    }
}
