//! The pairs of a range, in order, as they were at one instant.

use super::Result;
use crate::fs::{FileSystem, KeyRange, Name};
use bytes::Bytes;
use kivafs::store::View;
use std::vec;

/// Bytes of keys and values that are taken at a time.
const STEP_BYTES: usize = 64 << 10;

/// The pairs of a range: key and value of each. After an error there are no more.
pub struct Range<'a> {
    fs: &'a FileSystem,
    view: View,
    /// What has been taken and not given yet.
    taken: vec::IntoIter<(Name, Bytes)>,
    /// Where the rest begins, if there is one.
    next: Option<Name>,
    to: Option<Name>,
}

impl<'a> Range<'a> {
    pub(super) fn new(fs: &'a FileSystem, from: Name, to: Option<Name>) -> Range<'a> {
        Range { fs, view: fs.store().view(), taken: Vec::new().into_iter(), next: Some(from), to }
    }
}

impl Iterator for Range<'_> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.taken.len() == 0
            && let Some(from) = self.next.take()
        {
            let some = || self.fs.pairs_of(&self.view, &from, self.to.as_ref(), STEP_BYTES);
            match self.fs.store().patiently(some) {
                Ok(KeyRange { pairs, next }) => (self.taken, self.next) = (pairs.into_iter(), next),
                Err(error) => return Some(Err(error.into())),
            }
        }
        let (key, value) = self.taken.next()?;
        Some(Ok((Bytes::copy_from_slice(key.raw()), value)))
    }
}
