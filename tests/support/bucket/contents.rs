//! What is in a bucket, and what each request does to it.

use super::call::{Answer, Call, Place, SEAL_MAGIC, commit_name, place_of};
use bytes::Bytes;
use kivafs::backend::ObjectError;
use std::collections::BTreeMap;

/// How a server treats `If-None-Match: *`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Conditional {
    /// As it should: one winner.
    #[default]
    Atomic,
    /// It looks when the request arrives and writes later: racing creates have several winners.
    Racy,
    /// Not at all: every create overwrites.
    Ignored,
}

/// Objects, and what was deleted.
#[derive(Clone, Default)]
pub struct Contents {
    objects: BTreeMap<String, Object>,
    /// What names held when they were deleted.
    deleted: BTreeMap<String, Bytes>,
    stored_count: u64,
    pub conditional: Conditional,
}

#[derive(Clone)]
struct Object {
    body: Bytes,
    /// How many were stored before it.
    age: u64,
}

/// What a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Listing {
    #[default]
    Right,
    /// The objects stored last, so many of all in the bucket, are not shown yet.
    HidesNewest(usize),
    /// What was deleted is still shown.
    ShowsDeleted,
    Empty,
    /// Not allowed.
    Refused,
}

impl Contents {
    /// Nothing, on such a server.
    pub fn on(conditional: Conditional) -> Contents {
        Contents { conditional, ..Contents::default() }
    }

    /// Does what is asked. `was_free`: no object of that name was there when the request arrived.
    pub fn carry_out(&mut self, call: &Call, was_free: bool) -> Result<Answer, ObjectError> {
        match call {
            Call::Create { name, body } => {
                let may = match self.conditional {
                    Conditional::Atomic => !self.objects.contains_key(name),
                    Conditional::Racy => was_free,
                    Conditional::Ignored => true,
                };
                if !may {
                    return Err(ObjectError::Exists);
                }
                self.store(name, body);
                Ok(Answer::Done)
            }
            Call::Put { name, body } => {
                self.store(name, body);
                Ok(Answer::Done)
            }
            Call::Get { name, range } => {
                let body = self.body(name).ok_or(ObjectError::Missing)?;
                Ok(Answer::Body(part(body, range.clone())))
            }
            Call::List { prefix, max } => Ok(Answer::Names(self.list(prefix, *max, Listing::Right))),
            Call::Delete { names } => {
                names.iter().for_each(|name| self.remove(name));
                Ok(Answer::Done)
            }
        }
    }

    pub fn store(&mut self, name: &str, body: &Bytes) {
        let object = Object { body: body.clone(), age: self.stored_count };
        self.stored_count += 1;
        self.objects.insert(name.to_owned(), object);
    }

    pub fn remove(&mut self, name: &str) {
        if let Some(object) = self.objects.remove(name) {
            self.deleted.insert(name.to_owned(), object.body);
        }
    }

    pub fn body(&self, name: &str) -> Option<&Bytes> {
        self.objects.get(name).map(|object| &object.body)
    }

    /// What it held when it was deleted, if it was.
    pub fn deleted_body(&self, name: &str) -> Option<&Bytes> {
        self.deleted.get(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.objects.keys().cloned().collect()
    }

    /// The first names with that prefix, as such a listing shows them.
    pub fn list(&self, prefix: &str, max: u32, listing: Listing) -> Vec<String> {
        assert!((1..=1000).contains(&max), "a list of {max} names");
        let newest = match listing {
            Listing::HidesNewest(count) => self.age_of_newest(count),
            _ => u64::MAX,
        };
        let shown = self.objects.iter().filter(|(_, object)| object.age < newest).map(|(name, _)| name);
        let mut names: Vec<String> = shown.filter(|name| name.starts_with(prefix)).cloned().collect();
        match listing {
            Listing::ShowsDeleted => {
                names.extend(self.deleted.keys().filter(|name| name.starts_with(prefix)).cloned());
                names.sort_unstable();
                names.dedup();
            }
            Listing::Empty => names.clear(),
            _ => {}
        }
        names.truncate(max as usize);
        names
    }

    /// From which age on objects are among the newest.
    fn age_of_newest(&self, count: usize) -> u64 {
        let mut ages: Vec<u64> = self.objects.values().map(|object| object.age).collect();
        ages.sort_unstable();
        ages.len().checked_sub(count).map_or(0, |first| ages.get(first).copied().unwrap_or(u64::MAX))
    }

    /// The number of an epoch's seal, if it is sealed.
    pub fn seal_of(&self, epoch: u64) -> Option<u64> {
        self.commits_of(epoch).find(|(_, body)| body.starts_with(SEAL_MAGIC)).map(|(number, _)| number)
    }

    /// What is there of an epoch, newest first.
    pub fn commits_of(&self, epoch: u64) -> impl Iterator<Item = (u64, &Bytes)> {
        let (first, last) = (commit_name(epoch, u64::MAX), commit_name(epoch, 0));
        self.objects.range(first..=last).filter_map(|(name, object)| match place_of(name)? {
            Place::Commit { number, .. } => Some((number, &object.body)),
            Place::Data { .. } => None,
        })
    }
}

/// A range, cut where the object ends.
pub fn part(body: &Bytes, range: Option<std::ops::Range<u64>>) -> Bytes {
    let Some(range) = range else { return body.clone() };
    assert!(range.start < range.end, "an empty range: {range:?}");
    let end = (body.len() as u64).min(range.end) as usize;
    body.slice((range.start as usize).min(end)..end)
}
