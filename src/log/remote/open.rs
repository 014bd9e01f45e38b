//! Creating a store in a bucket, recovering it, and claiming it.
//!
//! A taker (R8): finds the newest commit; sees that nobody holds the store (its epoch is sealed, or its
//! opener's process is gone from this very machine, or the user says so); seals the epoch behind the
//! newest commit, and reads on if that place is taken; creates the first commit of the next epoch. Who
//! creates that owns the store. If somebody else did, the taker has lost: it says so and writes nothing
//! more.
//!
//! The interleavings that this closes:
//!
//! * *Stale taker.* T reads epoch 6 to c99 and sleeps; W goes on, rolls to epoch 7, cleans. T's seal at
//!   e6/c100 may succeed in the cleaned epoch. But e7/c1 exists, is never deleted, and T's claim meets
//!   it.
//! * *A taker dies between seal and claim.* The next one finds the seal and claims e7/c1.
//! * *Two takers.* Both may see the same seal; one creates e7/c1.
//! * *A writer that rolls.* Between its seal and its next epoch's first commit it still holds the store:
//!   its seal says so, and is not taken for a closed store.
//! * *A seal in a stale place.* A seal behind c99 when c100 exists meets c100 (an open epoch has no
//!   holes), so no acknowledged commit is ever behind the seal.

use super::bucket::{Bucket, Created};
use super::end::{self, EpochHolder, Found};
use super::keeper::{Keeper, Sight};
use super::names;
use super::record::{Garbage, Opening, Record, Waste};
use super::seal::{Seal, Why};
use super::tail::{Entry, Tail};
use super::writer::{Committer, Writer};
use crate::backend::{DiskCache, ObjectError, Usage};
use crate::log::commit::{Checkpoint, Commit};
use crate::log::flow::Flow;
use crate::log::geometry::Geometry;
use crate::log::pointer::{Codec, Sequence};
use crate::log::streams::Streams;
use crate::log::{Log, LogError, Medium, RESERVATION_STEP, Recovery, Redo, Sender, Shared, now_ns, random};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::SystemTime;

/// How many create the same object at once when a server is tried out, and how often.
const RACERS: usize = 8;
const RACES: usize = 4;

/// How a log in a bucket is opened.
pub enum Access {
    /// Nothing is written.
    ReadOnly,
    /// To write: who serves it where, and whether it may be taken from a holder that may be alive.
    Write {
        /// Where it is served.
        place: Option<Vec<u8>>,
        /// Take it over.
        takeover: bool,
    },
}

/// What the storage thread has to know to go on.
pub struct End {
    /// The newest commit as it was found.
    pub found: Found,
    /// Who holds the store, if its epoch is open and was not claimed by us.
    pub holder: Option<EpochHolder>,
    claim: Option<Claim>,
}

/// Our own epoch, which stands.
struct Claim {
    epoch: u64,
    epoch_id: [u8; 16],
    keeper: Keeper,
    /// The state of the log behind its first commit.
    sequence: Sequence,
    checksum: u128,
    record: Record,
    tail: Tail,
    reservation: u64,
}

/// Creates a store: its birth record. Durable when it returns.
pub fn create_in(bucket: &Bucket, geometry: Geometry, size_limit: u64) -> Result<(), LogError> {
    assert!(geometry.is_valid(), "geometry: {geometry:?}");
    let name = names::commit(1, 1);
    // Before anything is written there. Not by a GET: of a name that was asked for before it was created S3
    // does not promise that it is seen (C7), and who makes a store opens it next. What LIST does not show, or
    // may not, the create will meet.
    if end::listed(bucket, &name, 1).contains(&name) {
        return Err(LogError::Exists);
    }
    let fencing_proven = creates_are_atomic(bucket)?;
    if !fencing_proven && !bucket.unsafe_no_fencing {
        return Err(no_fencing(bucket));
    }
    let record = Record {
        geometry,
        size_limit,
        fencing_proven,
        next_segment: 1,
        usage: Usage::default(),
        changes: 0,
        changed_bytes: 0,
        garbage: Vec::new(),
        links: Vec::new(),
        repeated: Vec::new(),
        opening: Some(Opening {
            previous: 0,
            previous_id: [0; 16],
            seal: 0,
            since_ns: now_ns(),
            keeper: Keeper::myself(None),
        }),
    };
    let (store, epoch_id) = (random(), random());
    let mut commit = Commit::first(store, epoch_id, Some(record));
    let (bytes, checksum) = commit.encode(|_| 0);
    bucket.fence(fencing_proven);
    match bucket.create(&name, &bytes.into(), Some(bucket.patience()))? {
        Created::Ours => {}
        Created::Others(_) => return Err(LogError::Exists),
    }
    // Nobody holds a new store.
    let seal = Seal {
        store,
        epoch: 1,
        epoch_id,
        number: 2,
        last: Sequence(1),
        last_checksum: checksum,
        why: Why::Closed { next_segment: 1 },
        time_ns: now_ns(),
        nonce: random(),
    };
    bucket.create(&names::commit(1, 2), &seal.encode().into(), Some(bucket.patience())).map(|_| ())
}

fn no_fencing(bucket: &Bucket) -> LogError {
    LogError::Io(
        format!(
            "{}: this server's conditional PUT (If-None-Match: *) is missing or not atomic, so nothing keeps two \
             writers apart: use another server, or '-o unsafe_no_fencing' if there can never be a second writer",
            bucket.name()
        )
        .into(),
    )
}

/// Tries out whether exactly one of several creates of the same object succeeds. They race, because
/// servers that look first and write then pass a test that does one after the other.
fn creates_are_atomic(bucket: &Bucket) -> Result<bool, LogError> {
    let mut atomic = true;
    for _ in 0..RACES {
        let name = format!("p/{:032x}", u128::from_le_bytes(random()));
        let (answer, answered) = channel();
        for racer in 0..RACERS {
            let answer = answer.clone();
            let body = Bytes::from(vec![racer as u8; 64]);
            bucket.objects().create(&name, body, Box::new(move |result| drop(answer.send(result))));
        }
        drop(answer);
        let results: Vec<Result<(), ObjectError>> = answered.iter().collect();
        let winners = results.iter().filter(|result| result.is_ok()).count();
        let lost = results.iter().filter(|result| matches!(result, Err(ObjectError::Unknown(_)))).count();
        if let Some(Err(refused @ ObjectError::Refused(_))) =
            results.iter().find(|result| matches!(result, Err(ObjectError::Refused(_))))
            && winners == 0
        {
            let again = bucket.get(&name, None)?;
            if again.is_none() && !refused.to_string().contains("conditional") {
                return Err(LogError::Io(format!("{}: {refused}", bucket.name()).into()));
            }
            return Ok(false);
        }
        let (answer, deleted) = channel();
        bucket.objects().delete(vec![name], Box::new(move |result| drop(answer.send(result))));
        if let Ok(Err(error)) = deleted.recv() {
            tracing::debug!("{}: cannot delete what its server was tried out with: {error}", bucket.name());
        }
        atomic &= winners <= 1 && winners + lost >= 1;
    }
    Ok(atomic)
}

impl Log {
    /// Recovers the store in that bucket. To write: claims it first, so that from then on nobody else
    /// can; the caller adopts where all segments are and calls [`Log::start`].
    ///
    /// `disk_cache`: a directory to keep payloads in, and its size in bytes.
    pub fn open_in(
        bucket: Bucket,
        codec: Codec,
        access: Access,
        disk_cache: Option<(&Path, u64)>,
    ) -> Result<(Log, Recovery), LogError> {
        let store = end::birth(&bucket)?;
        if let Some((directory, bytes)) = disk_cache {
            let cache = DiskCache::open(directory, bytes, store)
                .map_err(|error| LogError::Io(format!("disk_cache={}: {error}", directory.display()).into()))?;
            bucket.keep_in(cache);
        }
        let mut found = end::find(&bucket, store)?;
        let mut holder = None;
        let claim = match access {
            Access::ReadOnly => {
                if found.is_held() {
                    holder = end::holder(&bucket, &found)?;
                }
                None
            }
            Access::Write { place, takeover } => Some(take(&bucket, &mut found, place.as_deref(), takeover)?),
        };
        let epoch = claim.as_ref().map_or(found.epoch, |claim| claim.epoch);
        let geometry = found.record.geometry;
        let recovery = Recovery {
            store,
            size_limit: found.record.size_limit,
            last: claim.as_ref().map_or(found.last, |claim| claim.sequence),
            time_ns: found.time_ns,
            epoch,
            checkpoint: found.checkpoint.clone(),
            redo: found.entries.iter().map(|entry| Redo::Body(entry.body.clone())).collect(),
            births: found.entries.iter().flat_map(|entry| entry.births.iter().copied()).collect(),
            end: crate::log::End::Bucket(Box::new(End { found, holder, claim })),
        };
        let crate::log::End::Bucket(end) = &recovery.end else { unreachable!("made just now") };
        let streams =
            Streams::new(store, epoch, geometry.segment_bytes, None, end.found.reservation, recovery.places());
        let tail_bytes = end.found.entries.iter().map(|entry| entry.body.len() as u64).sum();
        let shared = Arc::new(Shared::new(streams, Flow::to_bucket(), tail_bytes, geometry.ring_bytes));
        let medium = Medium::Bucket(Arc::new(bucket));
        Ok((Log { shared, medium, geometry, codec, sender: None, thread: Mutex::new(None) }, recovery))
    }
}

/// Makes the store ours. `found` is where its log ended when that was done.
fn take(bucket: &Bucket, found: &mut Found, place: Option<&[u8]>, takeover: bool) -> Result<Claim, LogError> {
    if !found.record.fencing_proven && !bucket.unsafe_no_fencing {
        return Err(no_fencing(bucket));
    }
    bucket.fence(found.record.fencing_proven);
    let store = found.store;
    let began = SystemTime::now();
    loop {
        if found.is_held()
            && let Some(holder) = end::holder(bucket, found)?
            && holder.sight != Sight::Gone
            && !takeover
        {
            return Err(LogError::Held(Box::new(holder)));
        }
        let seal = match &found.seal {
            Some(seal) => seal.clone(),
            None => {
                let seal = Seal {
                    store,
                    epoch: found.epoch,
                    epoch_id: found.epoch_id,
                    number: found.number + 1,
                    last: found.last,
                    last_checksum: found.checksum,
                    why: Why::Taken,
                    time_ns: now_ns(),
                    nonce: random(),
                };
                let name = names::commit(seal.epoch, seal.number);
                match bucket.create(&name, &seal.encode().into(), Some(bucket.patience()))? {
                    Created::Ours => seal,
                    // A later commit, or another taker's seal: what was found was not the end.
                    Created::Others(_) => {
                        *found = end::find_behind(bucket, store, seal.epoch, seal.number)?;
                        continue;
                    }
                }
            }
        };
        found.seal = Some(seal.clone());
        let keeper = Keeper::myself(place);
        let claim = prepare_claim(found, &seal, keeper);
        let (bytes, claim) = claim;
        let name = names::commit(claim.epoch, 1);
        match bucket.create(&name, &bytes, Some(bucket.patience()))? {
            Created::Ours => return Ok(claim),
            Created::Others(_) => {
                // What was found was old, or somebody was quicker: the end is further on.
                *found = end::find_behind(bucket, store, claim.epoch, 1)?;
                if found.is_held()
                    && let Some(holder) = end::holder(bucket, found)?
                    && holder.sight != Sight::Gone
                    && (!takeover || holder.since >= began)
                {
                    // Of two takers one wins; the other does not take it from the first.
                    return Err(LogError::Held(Box::new(holder)));
                }
            }
        }
    }
}

/// The first commit of the epoch behind that seal, and the state of the log once it stands.
fn prepare_claim(found: &Found, seal: &Seal, keeper: Keeper) -> (Bytes, Claim) {
    let now = now_ns();
    let mut garbage = found.record.garbage.clone();
    if let Some(waste) = waste_of(seal.epoch, seal.number) {
        garbage.push(Garbage { what: waste, since_ns: now });
    }
    let used = match seal.why {
        Why::Closed { next_segment } => next_segment,
        Why::Taken | Why::Rolled => found.reservation,
    };
    if found.record.next_segment < used {
        let what = Waste::Segments { from: found.record.next_segment, to: used };
        garbage.push(Garbage { what, since_ns: now });
    }
    // R11: below that a writer before us may still be uploading.
    let next_segment = found.reservation;
    // The last commit could not count itself, nor the seal.
    let usage = Usage { puts: found.record.usage.puts + 2, ..found.record.usage };
    let record = Record {
        next_segment,
        usage,
        garbage,
        links: Vec::new(),
        repeated: Vec::new(),
        opening: Some(Opening {
            previous: seal.epoch,
            previous_id: seal.epoch_id,
            seal: seal.number,
            since_ns: now,
            keeper: keeper.clone(),
        }),
        ..found.record.clone()
    };
    let mut state = OpeningState {
        store: found.store,
        epoch: seal.epoch + 1,
        epoch_id: random(),
        sequence: Sequence(found.last.0 + 1),
        predecessor: found.checksum,
        checkpoint: found.checkpoint.clone(),
        reservation: next_segment + RESERVATION_STEP,
    };
    let mut tail = Tail::of(found.entries.clone());
    let (bytes, checksum) = state.first_commit(&mut tail, record.clone());
    let claim = Claim {
        epoch: state.epoch,
        epoch_id: state.epoch_id,
        keeper,
        sequence: state.sequence,
        checksum,
        record,
        tail,
        reservation: state.reservation,
    };
    (bytes, claim)
}

/// What there is to delete of an epoch that ended with that seal.
pub fn waste_of(epoch: u64, seal: u64) -> Option<Waste> {
    // The first commit, the one before the seal, and the seal itself stay (R9).
    (seal > 3).then_some(Waste::Commits { epoch, seal })
}

/// What the first commit of an epoch is made of.
pub struct OpeningState {
    pub store: [u8; 16],
    pub epoch: u64,
    pub epoch_id: [u8; 16],
    pub sequence: Sequence,
    pub predecessor: u128,
    pub checkpoint: Checkpoint,
    pub reservation: u64,
}

impl OpeningState {
    /// Its bytes and checksum; the whole tail is repeated in it (R8), and `tail` knows that.
    pub fn first_commit(&mut self, tail: &mut Tail, mut record: Record) -> (Bytes, u128) {
        tail.roll();
        let own = Entry { sequence: self.sequence, births: Vec::new(), body: Bytes::new() };
        let plan = tail.plan(&own);
        let (repeated, births, body) = tail.repeat(plan, &own);
        record.repeated = repeated;
        let mut commit = Commit {
            store: self.store,
            epoch: self.epoch,
            epoch_id: self.epoch_id,
            number: 1,
            sequence: self.sequence,
            position: 0,
            predecessor: self.predecessor,
            time_ns: now_ns(),
            redo_from: Sequence(self.checkpoint.as_of.0 + 1),
            checkpoint_in: self.sequence,
            reservation: self.reservation,
            checkpoint: Some(self.checkpoint.clone()),
            remote: Some(record),
            births,
            body,
        };
        let (bytes, checksum) = commit.encode(|_| 0);
        tail.push(plan, own, super::record::Link { number: 1, checksum });
        (bytes.into(), checksum)
    }
}

/// Starts the storage thread of the epoch that was claimed.
pub fn start(
    shared: Arc<Shared>,
    bucket: Arc<Bucket>,
    end: End,
) -> Result<(Box<dyn Sender>, JoinHandle<()>), LogError> {
    let End { found, claim, .. } = end;
    let claim = claim.expect("a log opened for reading is not started");
    {
        let mut streams = shared.streams.lock();
        streams.begin_epoch(claim.epoch, None, claim.reservation);
    }
    let (events, inbox) = channel();
    let committer = Committer::start(bucket.clone(), events.clone())
        .map_err(|error| LogError::Io(format!("starting the committing thread: {error}").into()))?;
    let base = claim.record.usage;
    let writer = Writer::new(super::writer::Begin {
        shared,
        bucket,
        committer,
        store: found.store,
        epoch: claim.epoch,
        epoch_id: claim.epoch_id,
        since_ns: claim.record.opening.as_ref().map_or(0, |opening| opening.since_ns),
        keeper: claim.keeper,
        last: claim.sequence,
        last_checksum: claim.checksum,
        checkpoint: found.checkpoint,
        record: claim.record,
        usage_before: base,
        tail: claim.tail,
        events: events.clone(),
    });
    let thread = std::thread::Builder::new()
        .name("kivafs-storage".into())
        .spawn(move || writer.run(&inbox))
        .map_err(|error| LogError::Io(format!("starting the storage thread: {error}").into()))?;
    Ok((Box::new(super::writer::Door(events)), thread))
}
