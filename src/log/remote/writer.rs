//! The storage thread of a bucket: one event loop, which never waits for a request.
//!
//! Data segments are uploaded as they are cut off, many at a time, and tried again until they are
//! there. Commits are made one at a time (L1; the seal relies on at most one being under way): one is
//! *prepared* when its turn comes, waits until every segment handed over before that is acknowledged
//! (R1), and is then created by the committing thread, which does not come back before the fate of
//! those very bytes is known (R10). Meanwhile segments go on being uploaded, and changes gather for the
//! next commit.
//!
//! When a commit's place is taken by somebody else's object, the store was taken over: nothing is
//! acknowledged any more, and the first failure says by whom.
//!
//! After [`ROLL_AFTER`] commits the epoch is sealed and the next one opened, so that old commits can be
//! deleted (R9). Nothing lives in commits (L2), so nothing has to be moved before.
//!
//! Deleting: segments given back, and what an earlier epoch left ([`Garbage`]), wait until readers
//! elsewhere had the time to notice, and are deleted behind a commit: an idle store sends nothing.
//!
//! Shutdown order: the store has stopped its other threads and made everything durable; uploads that
//! nothing refers to are waited for, so that none lands behind the seal; the epoch is sealed; the
//! threads end. The seal is a courtesy to the next machine: if the bucket does not answer, it is left
//! out.

use super::bucket::{Bucket, Created, Pauses};
use super::end::{self, EpochHolder, Object};
use super::keeper::Keeper;
use super::names;
use super::open::{OpeningState, waste_of};
use super::record::{Garbage, Link, Opening, Record, Waste};
use super::seal::{Seal, Why};
use super::tail::{Entry, Plan, Tail};
use crate::backend::{ObjectError, Usage};
use crate::log::commit::{Checkpoint, Commit};
use crate::log::message::{Closed, Done, Freed, Message, Prepare};
use crate::log::pointer::{SegmentNo, Sequence};
use crate::log::streams::Part;
use crate::log::{LogError, RESERVATION_STEP, Sender, Shared, now_ns, random};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Commits of an epoch before the next is opened.
const ROLL_AFTER: u64 = 4096;
/// Objects that one request deletes.
const DELETED_MAX: usize = 1000;
/// More garbage than that is not carried along in each commit: the oldest goes without waiting.
const GARBAGE_MAX: usize = 500;
/// How long closing waits for the seal.
const SEAL_PATIENCE: Duration = Duration::from_secs(10);

/// What happens to the storage thread.
pub enum Event {
    /// It is asked for something.
    Asked(Message),
    /// An upload ended.
    Uploaded(SegmentNo, Result<(), ObjectError>),
    /// The committing thread is done.
    Created(Result<Created, LogError>),
    /// A deletion ended.
    Deleted(Result<(), ObjectError>),
    /// Nobody can ask any more: the log was dropped.
    Abandoned,
}

/// What the callers' side of the log sends by. When it is dropped without a close, what a crash
/// leaves is left.
pub struct Door(pub mpsc::Sender<Event>);

impl Sender for Door {
    fn send(&self, message: Message) {
        // After a close, or when all was given up, nobody is there to hear it.
        drop(self.0.send(Event::Asked(message)));
    }

    /// Answers come to the storage thread, so nobody else can do its work.
    fn send_or_begin(&self, message: Message) -> Option<Box<dyn FnOnce() + '_>> {
        self.send(message);
        None
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.0.send(Event::Abandoned));
    }
}

/// Creates objects, one at a time, on a thread of its own.
pub struct Committer {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    name: String,
    bytes: Bytes,
    limit: Option<Duration>,
}

impl Committer {
    /// Starts it; outcomes go to `events`.
    pub fn start(bucket: Arc<Bucket>, events: mpsc::Sender<Event>) -> io::Result<Committer> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("kivafs-commit".into()).spawn(move || {
            for job in inbox {
                let created = bucket.create(&job.name, &job.bytes, job.limit);
                if events.send(Event::Created(created)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Committer { jobs })
    }

    fn create(&self, name: String, bytes: Bytes, limit: Option<Duration>) {
        self.jobs.send(Job { name, bytes, limit }).unwrap_or_else(|_| panic!("the committing thread has ended"));
    }
}

/// A commit that was frozen.
struct Frozen {
    entry: Entry,
    plan: Plan,
    checkpoint: Option<Checkpoint>,
    reservation: u64,
    next_segment: u64,
    bytes: Bytes,
    checksum: u128,
    done: Done,
}

/// What is being made at the log's end.
enum Work {
    /// Nothing.
    Idle,
    /// A commit waits for the segments that it may refer to.
    Uploading(Box<Frozen>, BTreeSet<SegmentNo>),
    /// A commit is being created.
    Committing(Box<Frozen>),
    /// The epoch is being sealed, to open the next.
    Rolling,
    /// The next epoch's first commit is being created.
    Opening(Box<OpeningState>, u128),
    /// The last seal is being created.
    Closing(Closed),
}

struct Upload {
    bytes: Bytes,
    pauses: Pauses,
    again_at: Option<Instant>,
    refused_since: Option<Instant>,
}

/// What is to be deleted, and who is told.
struct Doomed {
    since_ns: u64,
    numbers: Vec<SegmentNo>,
    freed: Freed,
}

/// A deletion under way.
enum Deleting {
    Segments(Vec<SegmentNo>, Freed),
    /// The garbage at the front, of which this many objects were asked for.
    Garbage(Garbage, u64),
}

/// What the storage thread begins with.
pub struct Begin {
    pub shared: Arc<Shared>,
    pub bucket: Arc<Bucket>,
    pub committer: Committer,
    pub store: [u8; 16],
    pub epoch: u64,
    pub epoch_id: [u8; 16],
    pub keeper: Keeper,
    /// When it opened the store.
    pub since_ns: u64,
    /// The epoch's first commit.
    pub last: Sequence,
    pub last_checksum: u128,
    pub checkpoint: Checkpoint,
    pub record: Record,
    pub usage_before: Usage,
    pub tail: Tail,
    pub events: mpsc::Sender<Event>,
}

/// The state of the log's end, owned by the storage thread.
pub struct Writer {
    now: Begin,
    /// Number of the next commit within the epoch.
    number: u64,
    work: Work,
    waiting: VecDeque<(Prepare, Done)>,
    closing: Option<Closed>,
    uploads: HashMap<SegmentNo, Upload>,
    doomed: VecDeque<Doomed>,
    deleting: Option<Deleting>,
    /// How many objects of the garbage at the front are deleted.
    garbage_done: u64,
}

impl Writer {
    /// Behind the epoch's first commit.
    pub fn new(begin: Begin) -> Writer {
        let writer = Writer {
            now: begin,
            number: 2,
            work: Work::Idle,
            waiting: VecDeque::new(),
            closing: None,
            uploads: HashMap::new(),
            doomed: VecDeque::new(),
            deleting: None,
            garbage_done: 0,
        };
        writer.publish_tail();
        writer
    }

    /// Serves events until it is closed or abandoned.
    pub fn run(mut self, inbox: &Receiver<Event>) {
        loop {
            let event = match self.next_try() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Asked(message)) => self.asked(message),
                Ok(Event::Uploaded(number, result)) => self.uploaded(number, result),
                Ok(Event::Created(result)) => {
                    if self.created(result) {
                        return;
                    }
                }
                Ok(Event::Deleted(result)) => self.deleted(result),
                Ok(Event::Abandoned) | Err(RecvTimeoutError::Disconnected) => {
                    self.now.bucket.give_up();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => self.try_again(),
            }
            if self.go_on() {
                return;
            }
        }
    }

    fn asked(&mut self, message: Message) {
        match message {
            Message::Write(part) => self.upload(part),
            // There is always room for a commit.
            Message::Commit { prepare, done, claim: _ } => self.waiting.push_back((prepare, done)),
            Message::Retry(_) => {}
            Message::Free { numbers, since_ns, freed } => self.doomed.push_back(Doomed { since_ns, numbers, freed }),
            // There is none.
            Message::LengthenRing(_) => {}
            Message::Reached(answer) => drop(answer.send(())),
            Message::Close { give_back: _, done } => self.closing = Some(done),
        }
    }

    /// Begins what can be begun; true: the end.
    fn go_on(&mut self) -> bool {
        // Poisoned from outside: what a commit waits for may never come.
        if self.now.shared.failure().is_some() {
            self.uploads.clear();
            self.commit_fails();
        }
        while matches!(self.work, Work::Idle) {
            if let Err(failure) = self.now.shared.check_failure() {
                for (_, done) in self.waiting.drain(..) {
                    done(Err(failure.clone()));
                }
                if let Some(done) = self.closing.take() {
                    done(Err(failure));
                    return true;
                }
                return false;
            }
            if self.number > ROLL_AFTER && !self.waiting.is_empty() {
                self.seal(Why::Rolled, None);
                self.work = Work::Rolling;
            } else if let Some((prepare, done)) = self.waiting.pop_front() {
                self.freeze(prepare, done);
            } else if self.closing.is_some() && self.uploads.is_empty() {
                let done = self.closing.take().expect("just seen");
                let next_segment = self.now.shared.streams.lock().next_number();
                self.seal(Why::Closed { next_segment }, Some(SEAL_PATIENCE));
                self.work = Work::Closing(done);
            } else {
                return false;
            }
        }
        false
    }

    /// Freezes a commit: from here on its bytes are what they are (R10).
    fn freeze(&mut self, prepare: Prepare, done: Done) {
        let sequence = Sequence(self.now.last.0 + 1);
        let prepared = prepare(sequence, self.now.record.geometry.far_commit_bytes_max());
        if let Err(failure) = self.now.shared.check_failure() {
            return done(Err(failure));
        }
        let Some(prepared) = prepared else { return done(Ok(self.now.last)) };
        let (needed, reservation) = {
            let streams = self.now.shared.streams.lock();
            (streams.not_stored(prepared.checkpoint.is_some()), streams.next_number() + RESERVATION_STEP)
        };
        // Exactly behind its births: what is opened later is garbage if no later commit comes.
        let next_segment = prepared.next_segment;
        self.now.record.changes += prepared.changes;
        self.now.record.changed_bytes += prepared.changed_bytes;
        let checkpoint = prepared.checkpoint;
        if let Some(checkpoint) = &checkpoint {
            // Not only from the next commit on: this one brings its checkpoint, and needs nothing before it.
            // If it cannot be written, nothing can any more.
            self.now.tail.forget_before(Sequence(checkpoint.as_of.0 + 1));
        }
        let entry = Entry { sequence, births: prepared.births, body: prepared.body.into() };
        let plan = self.now.tail.plan(&entry);
        let (repeated, births, body) = self.now.tail.repeat(plan, &entry);
        let builds_on = checkpoint.clone().unwrap_or_else(|| self.now.checkpoint.clone());
        let mut commit = Commit {
            store: self.now.store,
            epoch: self.now.epoch,
            epoch_id: self.now.epoch_id,
            number: self.number,
            sequence,
            position: 0,
            predecessor: self.now.last_checksum,
            time_ns: now_ns(),
            redo_from: Sequence(builds_on.as_of.0 + 1),
            checkpoint_in: sequence,
            reservation,
            checkpoint: Some(builds_on),
            remote: Some(Record {
                usage: self.usage(),
                next_segment,
                links: self.now.tail.links(plan),
                repeated,
                opening: None,
                ..self.now.record.clone()
            }),
            births,
            body,
        };
        let (bytes, checksum) = commit.encode(|_| 0);
        let bytes = bytes.into();
        let frozen = Frozen { entry, plan, checkpoint, reservation, next_segment, bytes, checksum, done };
        self.work = Work::Uploading(Box::new(frozen), needed);
        self.commit_if_uploaded();
    }

    /// R1: everything that the commit may refer to is there.
    fn commit_if_uploaded(&mut self) {
        if !matches!(&self.work, Work::Uploading(_, needed) if needed.is_empty()) {
            return;
        }
        let Work::Uploading(frozen, _) = std::mem::replace(&mut self.work, Work::Idle) else {
            unreachable!("just seen");
        };
        if let Err(failure) = self.now.shared.check_failure() {
            return (frozen.done)(Err(failure));
        }
        self.now.committer.create(names::commit(self.now.epoch, self.number), frozen.bytes.clone(), None);
        self.work = Work::Committing(frozen);
    }

    /// The fate of what was being created is known; true: the end.
    fn created(&mut self, result: Result<Created, LogError>) -> bool {
        let result = match result {
            Ok(Created::Ours) => Ok(()),
            Ok(Created::Others(bytes)) => Err(self.fenced(bytes)),
            Err(error) => Err(error.to_string()),
        };
        match (std::mem::replace(&mut self.work, Work::Idle), result) {
            (Work::Committing(frozen), Ok(())) => self.durable(*frozen),
            (Work::Committing(frozen), Err(cause)) => {
                (frozen.done)(Err(self.fail(cause)));
            }
            (Work::Rolling, Ok(())) => self.open_next(),
            (Work::Opening(state, checksum), Ok(())) => {
                self.now.epoch = state.epoch;
                self.now.epoch_id = state.epoch_id;
                self.now.last = state.sequence;
                self.now.last_checksum = checksum;
                self.number = 2;
                let mut streams = self.now.shared.streams.lock();
                streams.roll(state.epoch);
                streams.reservation = state.reservation;
                drop(streams);
                self.publish_tail();
            }
            (Work::Rolling | Work::Opening(..), Err(cause)) => {
                self.fail(cause);
            }
            (Work::Closing(done), result) => {
                // Everything was durable before: the seal only spares the next machine a question.
                if let Err(cause) = result {
                    tracing::warn!("{}: closed, but not marked as closed: {cause}", self.now.bucket.name());
                }
                self.now.bucket.give_up();
                done(Ok(()));
                return true;
            }
            (Work::Idle | Work::Uploading(..), _) => unreachable!("nothing was being created"),
        }
        false
    }

    fn durable(&mut self, frozen: Frozen) {
        let Frozen { entry, plan, checkpoint, reservation, next_segment, bytes, checksum, done } = frozen;
        let sequence = entry.sequence;
        self.now.tail.push(plan, entry, Link { number: self.number, checksum });
        if let Some(checkpoint) = checkpoint {
            self.now.checkpoint = checkpoint;
        }
        (self.now.last, self.now.last_checksum) = (sequence, checksum);
        self.number += 1;
        self.now.record.next_segment = next_segment;
        self.now.shared.streams.lock().reservation = reservation;
        self.now.shared.counters.commits.add(1);
        self.now.shared.counters.commit_bytes.add(bytes.len() as u64);
        self.publish_tail();
        done(Ok(sequence));
        self.delete_what_is_due();
    }

    fn publish_tail(&self) {
        let bytes = self.now.tail.bytes();
        self.now.shared.tail_bytes.store(bytes, Ordering::Relaxed);
        self.now.shared.ring_used.store(bytes, Ordering::Relaxed);
    }

    fn usage(&self) -> Usage {
        let (before, now) = (self.now.usage_before, self.now.bucket.usage());
        Usage {
            puts: before.puts + now.puts,
            gets: before.gets + now.gets,
            lists: before.lists + now.lists,
            deletes: before.deletes + now.deletes,
            bytes_up: before.bytes_up + now.bytes_up,
            bytes_down: before.bytes_down + now.bytes_down,
        }
    }

    /// Has the epoch sealed behind its last commit.
    fn seal(&mut self, why: Why, limit: Option<Duration>) {
        let seal = Seal {
            store: self.now.store,
            epoch: self.now.epoch,
            epoch_id: self.now.epoch_id,
            number: self.number,
            last: self.now.last,
            last_checksum: self.now.last_checksum,
            why,
            time_ns: now_ns(),
            nonce: random(),
        };
        self.now.committer.create(names::commit(seal.epoch, seal.number), seal.encode().into(), limit);
    }

    /// Our own seal stands: opens the next epoch.
    fn open_next(&mut self) {
        let reservation = self.now.shared.streams.lock().reservation;
        if let Some(what) = waste_of(self.now.epoch, self.number) {
            self.now.record.garbage.push(Garbage { what, since_ns: now_ns() });
        }
        let opening = Opening {
            previous: self.now.epoch,
            previous_id: self.now.epoch_id,
            seal: self.number,
            since_ns: self.now.since_ns,
            keeper: self.now.keeper.clone(),
        };
        let record =
            Record { usage: self.usage(), links: Vec::new(), opening: Some(opening), ..self.now.record.clone() };
        let mut state = OpeningState {
            store: self.now.store,
            epoch: self.now.epoch + 1,
            epoch_id: random(),
            sequence: Sequence(self.now.last.0 + 1),
            predecessor: self.now.last_checksum,
            checkpoint: self.now.checkpoint.clone(),
            reservation,
        };
        let (bytes, checksum) = state.first_commit(&mut self.now.tail, record);
        self.now.committer.create(names::commit(state.epoch, 1), bytes, None);
        self.work = Work::Opening(Box::new(state), checksum);
    }

    /// Somebody else's object stands where ours should.
    fn fenced(&self, bytes: Bytes) -> String {
        let (bucket, epoch) = (&self.now.bucket, self.now.epoch);
        let place = match self.work {
            Work::Opening(..) => (epoch + 1, 1),
            _ => (epoch, self.number),
        };
        let name = names::commit(place.0, place.1);
        match end::decode(bucket, &name, bytes, place, &self.now.store) {
            Ok(Object::Seal(_)) => match end::object(bucket, epoch + 1, 1, &self.now.store) {
                Ok(Some(Object::Commit(commit, _))) => taken_by(bucket, &commit),
                _ => format!("{}: taken over by somebody who has not said yet who it is", bucket.name()),
            },
            Ok(Object::Commit(commit, _)) if place.1 == 1 => taken_by(bucket, &commit),
            Ok(Object::Commit(..)) => format!(
                "{}/{name}: another writer's commit stands where ours should: its server has let two writers in",
                bucket.name()
            ),
            Err(error) => error.to_string(),
        }
    }

    /// The first failure is final.
    fn fail(&mut self, cause: String) -> LogError {
        tracing::error!("{cause}; nothing more is written");
        self.now.shared.poison(cause);
        self.uploads.clear();
        self.now.shared.check_failure().expect_err("just poisoned")
    }

    fn upload(&mut self, part: Part) {
        if self.now.shared.failure().is_some() {
            // It stays readable in memory: reads go on (C5).
            return self.now.shared.flow.store(part.bytes.len() as u64);
        }
        let upload = Upload { bytes: part.bytes, pauses: Pauses::default(), again_at: None, refused_since: None };
        self.send(part.segment, &upload.bytes);
        self.uploads.insert(part.segment, upload);
    }

    fn send(&self, number: SegmentNo, bytes: &Bytes) {
        let events = self.now.events.clone();
        // When nobody listens any more, the answer means nothing.
        let done = Box::new(move |result| drop(events.send(Event::Uploaded(number, result))));
        self.now.bucket.objects().put(&names::segment(number), bytes.clone(), done);
    }

    fn uploaded(&mut self, number: SegmentNo, result: Result<(), ObjectError>) {
        let Some(upload) = self.uploads.get_mut(&number) else { return };
        match result {
            Ok(()) => {
                self.now.bucket.answered();
                let length = upload.bytes.len() as u64;
                self.uploads.remove(&number);
                self.now.shared.streams.lock().written(number, 0);
                self.now.shared.counters.data_bytes.add(length);
                self.now.shared.flow.store(length);
                if let Work::Uploading(_, needed) = &mut self.work {
                    needed.remove(&number);
                }
                self.commit_if_uploaded();
            }
            Err(error) => {
                self.now.bucket.failed(&error);
                upload.again_at = Some(Instant::now() + upload.pauses.next(&error));
                match error {
                    error if self.now.bucket.is_given_up() => {
                        self.fail(format!("{}: {error} (given up)", self.now.bucket.name()));
                    }
                    ObjectError::Refused(cause) => {
                        let since = *upload.refused_since.get_or_insert_with(Instant::now);
                        if since.elapsed() >= self.now.bucket.patience() {
                            self.fail(format!("{}: {cause}", self.now.bucket.name()));
                        }
                    }
                    _ => upload.refused_since = None,
                }
            }
        }
    }

    /// A commit that waits for an upload which will not come.
    fn commit_fails(&mut self) {
        if let Work::Uploading(..) = &self.work
            && let Work::Uploading(frozen, _) = std::mem::replace(&mut self.work, Work::Idle)
            && let Err(failure) = self.now.shared.check_failure()
        {
            (frozen.done)(Err(failure));
        }
    }

    /// When the next upload is to be tried again.
    fn next_try(&self) -> Option<Instant> {
        self.uploads.values().filter_map(|upload| upload.again_at).min()
    }

    fn try_again(&mut self) {
        let now = Instant::now();
        let due: Vec<SegmentNo> = self
            .uploads
            .iter_mut()
            .filter(|(_, upload)| upload.again_at.is_some_and(|at| at <= now))
            .map(|(number, upload)| {
                upload.again_at = None;
                *number
            })
            .collect();
        for number in due {
            self.send(number, &self.uploads[&number].bytes);
        }
    }

    /// Deletes one batch of what readers elsewhere had the time to let go of.
    fn delete_what_is_due(&mut self) {
        if self.deleting.is_some() {
            return;
        }
        let grace = self.now.bucket.grace;
        if self.doomed.front().is_some_and(|doomed| is_due(doomed.since_ns, grace)) {
            let mut doomed = self.doomed.pop_front().expect("just seen");
            if doomed.numbers.len() > DELETED_MAX {
                // The rest is told of with its own last batch.
                let rest = doomed.numbers.split_off(DELETED_MAX);
                let freed = std::mem::replace(&mut doomed.freed, Box::new(|_| ()));
                let (since_ns, first) = (doomed.since_ns, doomed.numbers.clone());
                let all = move |last: &[SegmentNo]| freed(&[&first[..], last].concat());
                self.doomed.push_front(Doomed { since_ns, numbers: rest, freed: Box::new(all) });
            }
            let names = doomed.numbers.iter().map(|number| names::segment(*number)).collect();
            self.deleting = Some(Deleting::Segments(doomed.numbers, doomed.freed));
            return self.delete(names);
        }
        let garbage = self.now.record.garbage.first().copied();
        let is_much = self.now.record.garbage.len() > GARBAGE_MAX;
        if let Some(garbage) = garbage.filter(|garbage| is_much || is_due(garbage.since_ns, grace)) {
            let (first, end) = match garbage.what {
                Waste::Commits { seal, .. } => (2, seal - 1),
                Waste::Segments { from, to } => (from, to),
            };
            let from = first + self.garbage_done;
            let to = end.min(from + DELETED_MAX as u64);
            let names: Vec<String> = (from..to)
                .map(|number| match garbage.what {
                    Waste::Commits { epoch, .. } => names::commit(epoch, number),
                    Waste::Segments { .. } => names::segment(SegmentNo(number)),
                })
                .collect();
            if names.is_empty() {
                self.now.record.garbage.remove(0);
                self.garbage_done = 0;
                return;
            }
            self.deleting = Some(Deleting::Garbage(garbage, names.len() as u64));
            self.delete(names);
        }
    }

    fn delete(&self, names: Vec<String>) {
        let events = self.now.events.clone();
        let done = Box::new(move |result| drop(events.send(Event::Deleted(result))));
        self.now.bucket.objects().delete(names, done);
    }

    fn deleted(&mut self, result: Result<(), ObjectError>) {
        match (self.deleting.take(), result) {
            (Some(Deleting::Segments(numbers, freed)), Ok(())) => {
                let mut streams = self.now.shared.streams.lock();
                for number in &numbers {
                    streams.forget(*number);
                }
                drop(streams);
                freed(&numbers);
            }
            (Some(Deleting::Garbage(garbage, count)), Ok(())) => {
                if self.now.record.garbage.first() == Some(&garbage) {
                    self.garbage_done += count;
                }
            }
            // Again behind a later commit.
            (Some(Deleting::Segments(numbers, freed)), Err(error)) => {
                tracing::debug!("{}: deleting: {error}", self.now.bucket.name());
                self.doomed.push_back(Doomed { since_ns: 0, numbers, freed });
            }
            (Some(Deleting::Garbage(..)) | None, _) => {}
        }
    }
}

fn is_due(since_ns: u64, grace: Duration) -> bool {
    u128::from(now_ns().saturating_sub(since_ns)) >= grace.as_nanos()
}

fn taken_by(bucket: &Bucket, commit: &Commit) -> String {
    let opening = commit.remote.as_ref().and_then(|record| record.opening.as_ref());
    match opening.map(EpochHolder::new) {
        Some(holder) => format!("{}: taken over by {holder}", bucket.name()),
        None => format!("{}: taken over", bucket.name()),
    }
}
