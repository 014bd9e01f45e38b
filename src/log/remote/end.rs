//! Finding the end of the log, and reading what leads to it.
//!
//! What GET and LIST find is a lower bound of the end (R12): only a successful create proves it. So a
//! reader takes the bound for the end, and may lag; a writer goes on from the bound until its seal
//! or its claim succeeds.

use super::bucket::Bucket;
use super::keeper::Sight;
use super::names;
use super::record::{Opening, Record};
use super::seal::{Seal, Why};
use super::tail::Entry;
use crate::log::LogError;
use crate::log::commit::{Checkpoint, Commit, HEADER_BYTES, NotACommit, store_of};
use crate::log::pointer::Sequence;
use bytes::Bytes;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Who holds a store in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochHolder {
    /// Its process id, on its machine.
    pub pid: u32,
    /// Its machine's name.
    pub host: String,
    /// Where it serves the store.
    pub place: Option<Vec<u8>>,
    /// When it opened the store.
    pub since: SystemTime,
    /// Whether its process lives on this machine.
    pub sight: Sight,
}

impl fmt::Display for EpochHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} on {}", self.pid, self.host)?;
        match &self.place {
            Some(place) => write!(f, " at {}", String::from_utf8_lossy(place)),
            None => Ok(()),
        }
    }
}

impl EpochHolder {
    /// The one that an opening names.
    pub fn new(opening: &Opening) -> EpochHolder {
        let (keeper, since_ns) = (&opening.keeper, opening.since_ns);
        EpochHolder {
            pid: keeper.pid,
            host: String::from_utf8_lossy(&keeper.host).into_owned(),
            place: keeper.place.clone(),
            since: SystemTime::UNIX_EPOCH + Duration::from_nanos(since_ns),
            sight: keeper.sight(),
        }
    }
}

/// The newest commit, with all that recovery needs.
pub struct Found {
    /// The epoch's random identity.
    pub epoch_id: [u8; 16],
    /// The newest commit's number in its epoch.
    pub number: u64,
    /// Its checksum.
    pub checksum: u128,
    /// What it says of the store.
    pub record: Record,
    /// Its sequence.
    pub last: Sequence,
    /// When it was written.
    pub time_ns: u64,
    /// Data numbers below this may be in use.
    pub reservation: u64,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The redo after the checkpoint.
    pub entries: Vec<Entry>,
    /// The store.
    pub store: [u8; 16],
    /// The epoch.
    pub epoch: u64,
    /// The seal behind it, if there is one.
    pub seal: Option<Seal>,
    /// Who opened the epoch, if this is its first commit.
    opener: Option<EpochHolder>,
}

/// What stands at a place of the log.
pub enum Object {
    Commit(Box<Commit>, u128),
    Seal(Seal),
}

/// The identity of the store in a bucket, from its birth record.
pub fn birth(bucket: &Bucket) -> Result<[u8; 16], LogError> {
    let name = names::commit(1, 1);
    let first = match bucket.get(&name, Some(0..HEADER_BYTES as u64))? {
        // Somebody looked before it was created, perhaps, and a cache on the way remembers that (C7).
        None if !listed(bucket, names::COMMITS, 1).is_empty() => bucket.get_existing(&name)?,
        seen => seen,
    };
    store_of(&first.ok_or(LogError::Missing)?).ok_or(LogError::Foreign)
}

/// The first names that LIST shows: none, if it is not allowed or does not work. It shows a bound of what is
/// there in any case (C7).
pub fn listed(bucket: &Bucket, prefix: &str, max: u32) -> Vec<String> {
    bucket.list(prefix, max).unwrap_or_else(|error| {
        tracing::debug!("{}: cannot be listed ({error})", bucket.name());
        Vec::new()
    })
}

impl Found {
    /// Whether whoever opened its epoch holds the store, if it lives.
    pub fn is_held(&self) -> bool {
        match &self.seal {
            None => true,
            Some(seal) => seal.why == Why::Rolled,
        }
    }
}

/// Finds the newest commit as far as can be seen, and reads it.
pub fn find(bucket: &Bucket, store: [u8; 16]) -> Result<Found, LogError> {
    let (epoch, number) = seen(bucket)?;
    newest(bucket, store, epoch, number)
}

/// Reads on from a place where something is known to stand, after a create met it.
pub fn find_behind(bucket: &Bucket, store: [u8; 16], epoch: u64, number: u64) -> Result<Found, LogError> {
    let number = gallop(number, |number| exists(bucket, epoch, number))?.unwrap_or(number);
    newest(bucket, store, epoch, number)
}

/// Reads what stands there. An epoch before the newest one may have been cleaned, and then lacks what
/// is looked for: the end is further on.
fn newest(bucket: &Bucket, store: [u8; 16], mut epoch: u64, mut number: u64) -> Result<Found, LogError> {
    let mut patient = false;
    loop {
        let there = match patient {
            true => existing(bucket, epoch, number, &store).map(Some),
            false => object(bucket, epoch, number, &store),
        };
        let read = match there {
            Ok(Some(Object::Seal(seal))) => before_seal(bucket, store, seal).map(Some),
            Ok(Some(Object::Commit(commit, checksum))) => follow(bucket, *commit, checksum).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let damage = match read {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(LogError::Damaged(damage)) => Some(damage),
            Err(error) => return Err(error),
        };
        match (gallop(epoch + 1, |epoch| exists(bucket, epoch, 1))?, damage) {
            (Some(later), _) => {
                epoch = later;
                number = gallop(1, |number| exists(bucket, epoch, number))?.unwrap_or(1);
                patient = false;
            }
            (None, Some(damage)) => return Err(LogError::Damaged(damage)),
            // A 404 from before it was created, perhaps.
            (None, None) => patient = true,
        }
    }
}

/// A lower bound of the end: by LIST, or where that shows nothing, by doubling and bisecting (epochs'
/// first commits are never deleted, and an epoch that is open has no holes).
fn seen(bucket: &Bucket) -> Result<(u64, u64), LogError> {
    if let Some(end) = listed(bucket, names::COMMITS, 2).iter().filter_map(|name| names::parse_commit(name)).next() {
        return Ok(end);
    }
    let epoch = gallop(1, |epoch| exists(bucket, epoch, 1))?.ok_or(LogError::Missing)?;
    let number = gallop(1, |number| exists(bucket, epoch, number))?.unwrap_or(1);
    Ok((epoch, number))
}

/// The last number from `first` on of an unbroken run; none: not even the first is there. A number
/// that seems missing by mistake makes the answer too low, which is allowed (R12).
fn gallop(first: u64, mut exists: impl FnMut(u64) -> Result<bool, LogError>) -> Result<Option<u64>, LogError> {
    if !exists(first)? {
        return Ok(None);
    }
    let (mut there, mut step) = (first, 1);
    while exists(there + step)? {
        there += step;
        step *= 2;
    }
    let mut absent = there + step;
    while absent - there > 1 {
        let middle = there + (absent - there) / 2;
        if exists(middle)? {
            there = middle;
        } else {
            absent = middle;
        }
    }
    Ok(Some(there))
}

fn exists(bucket: &Bucket, epoch: u64, number: u64) -> Result<bool, LogError> {
    Ok(bucket.get(&names::commit(epoch, number), Some(0..HEADER_BYTES as u64))?.is_some())
}

/// Reads what stands at a place of the log, if anything is seen there.
pub fn object(bucket: &Bucket, epoch: u64, number: u64, store: &[u8; 16]) -> Result<Option<Object>, LogError> {
    let name = names::commit(epoch, number);
    match bucket.get(&name, None)? {
        Some(bytes) => decode(bucket, &name, bytes, (epoch, number), store).map(Some),
        None => Ok(None),
    }
}

/// Checks that bytes are what belongs there.
pub fn decode(
    bucket: &Bucket,
    name: &str,
    bytes: Bytes,
    place: (u64, u64),
    store: &[u8; 16],
) -> Result<Object, LogError> {
    let wrong = |what: String| LogError::damaged(format!("{}/{name}: {what}", bucket.name()));
    let of = |error: NotACommit| match error {
        NotACommit::OtherVersion(what) => LogError::OtherVersion(what),
        NotACommit::Absent => wrong("neither a commit nor a seal of this store".into()),
        NotACommit::Torn(what) => wrong(format!("does not fit its checksum or its format ({what})")),
    };
    let (object, its_place) = if Seal::is_one(&bytes) {
        let seal = Seal::decode(&bytes, store).map_err(of)?;
        let its = (seal.epoch, seal.number);
        (Object::Seal(seal), its)
    } else {
        let (commit, checksum) = Commit::decode(bytes.into(), store).map_err(of)?;
        let its = (commit.epoch, commit.number);
        (Object::Commit(Box::new(commit), checksum), its)
    };
    match its_place == place {
        true => Ok(object),
        false => Err(wrong(format!("it is number {} of epoch {}", its_place.1, its_place.0))),
    }
}

fn missing(bucket: &Bucket, name: &str) -> LogError {
    LogError::damaged(format!("{}/{name}: is missing: was it deleted by hand, or by a bucket rule?", bucket.name()))
}

fn before_seal(bucket: &Bucket, store: [u8; 16], seal: Seal) -> Result<Found, LogError> {
    let (epoch, number) = (seal.epoch, seal.number - 1);
    let (commit, checksum) = existing_commit(bucket, epoch, number, &store)?;
    if (commit.sequence, checksum) != (seal.last, seal.last_checksum) {
        let name = names::commit(epoch, number);
        return Err(LogError::damaged(format!("{}/{name}: not the commit that its seal names", bucket.name())));
    }
    Ok(Found { seal: Some(seal), ..follow(bucket, commit, checksum)? })
}

/// What stands at a place where something is known to be.
fn existing(bucket: &Bucket, epoch: u64, number: u64, store: &[u8; 16]) -> Result<Object, LogError> {
    let name = names::commit(epoch, number);
    let bytes = bucket.get_existing(&name)?.ok_or_else(|| missing(bucket, &name))?;
    decode(bucket, &name, bytes, (epoch, number), store)
}

fn existing_commit(bucket: &Bucket, epoch: u64, number: u64, store: &[u8; 16]) -> Result<(Commit, u128), LogError> {
    match existing(bucket, epoch, number, store)? {
        Object::Commit(commit, checksum) => Ok((*commit, checksum)),
        Object::Seal(_) => {
            let name = names::commit(epoch, number);
            Err(LogError::damaged(format!("{}/{name}: a seal in a commit's place", bucket.name())))
        }
    }
}

/// Gathers the redo since the checkpoint (T1).
fn follow(bucket: &Bucket, commit: Commit, checksum: u128) -> Result<Found, LogError> {
    let wrong = |what: &str| {
        let name = names::commit(commit.epoch, commit.number);
        LogError::damaged(format!("{}/{name}: {what}", bucket.name()))
    };
    let record = commit.remote.clone().ok_or_else(|| wrong("it lacks the record of a store in a bucket"))?;
    let checkpoint = commit.checkpoint.clone().ok_or_else(|| wrong("it names no checkpoint"))?;
    let redo_from = commit.redo_from;
    if redo_from.0 != checkpoint.as_of.0 + 1 {
        return Err(wrong("its redo does not begin behind its checkpoint"));
    }
    let opener = record.opening.as_ref().map(EpochHolder::new);
    let mut entries = Vec::new();
    for link in &record.links {
        let (linked, its_checksum) = existing_commit(bucket, commit.epoch, link.number, &commit.store)?;
        if its_checksum != link.checksum {
            return Err(wrong("a commit that it links to is another"));
        }
        entries.extend(entries_of(linked).ok_or_else(|| wrong("a commit that it links to is malformed"))?);
    }
    let (epoch_id, number, last) = (commit.epoch_id, commit.number, commit.sequence);
    let (time_ns, reservation, store, epoch) = (commit.time_ns, commit.reservation, commit.store, commit.epoch);
    let malformed = wrong("what it repeats is malformed");
    let holes = wrong("redo is missing between its checkpoint and itself");
    entries.extend(entries_of(commit).ok_or(malformed)?);
    entries.retain(|entry| entry.sequence >= redo_from);
    let is_whole = entries.iter().map(|entry| entry.sequence.0).eq(redo_from.0..=last.0);
    if !is_whole {
        return Err(holes);
    }
    Ok(Found {
        epoch_id,
        number,
        checksum,
        record,
        last,
        time_ns,
        reservation,
        checkpoint,
        entries,
        store,
        epoch,
        seal: None,
        opener,
    })
}

/// Takes a commit apart into what it repeats and its own.
fn entries_of(commit: Commit) -> Option<Vec<Entry>> {
    let repeated = commit.remote?.repeated;
    let mut births = &commit.births[..];
    let mut body = Bytes::from(commit.body);
    let mut entries = Vec::with_capacity(repeated.len() + 1);
    for one in repeated {
        let (its, rest) = births.split_at_checked(one.births as usize)?;
        births = rest;
        if body.len() < one.body_bytes as usize {
            return None;
        }
        // Each apart: one that is kept must not keep the others' bytes in memory.
        let its_body = Bytes::copy_from_slice(&body.split_to(one.body_bytes as usize));
        entries.push(Entry { sequence: one.sequence, births: its.to_vec(), body: its_body });
    }
    entries.push(Entry { sequence: commit.sequence, births: births.to_vec(), body });
    Some(entries)
}

/// Who opened the epoch of that commit.
pub fn holder(bucket: &Bucket, found: &Found) -> Result<Option<EpochHolder>, LogError> {
    if found.opener.is_some() {
        return Ok(found.opener.clone());
    }
    let (commit, _) = existing_commit(bucket, found.epoch, 1, &found.store)?;
    Ok(commit.remote.and_then(|record| record.opening).map(|opening| EpochHolder::new(&opening)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn galloping_finds_the_end_in_few_steps() {
        for first in [1, 7] {
            for end in first..first + 200 {
                let mut asked = 0;
                let found = gallop(first, |number| {
                    asked += 1;
                    Ok(number <= end)
                });
                assert_eq!(found.expect("no error"), Some(end));
                assert!(asked <= 2 + 2 * (end - first + 1).ilog2() + 1, "{asked} for {end}");
            }
        }
        assert_eq!(gallop(1, |_| Ok(false)).expect("no error"), None);
    }
}
