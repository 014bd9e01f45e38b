//! Machines that share a bucket: each has the store open, had it, or tries to get it.

use super::bucket::{Bucket, Cut, Filter, Handle, Held, OnTheWay, Point, SEAL_MAGIC, What, commit_name};
use super::medium::{Medium, assert_whole};
use super::store::{Change, SMALL, Sizes, State, commit, create_in, difference, read_state, unhurried};
use kivafs::store::{OpenError, OpenOptions, Store, StoreError};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What never comes fails the test within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Freed objects are deleted with the next commit, not after minutes.
pub fn eager() -> OpenOptions {
    OpenOptions { grace: Duration::ZERO, timeout: Duration::from_secs(20), ..unhurried() }
}

/// Takes the store even from a process that lives: all machines of a test are this process.
pub fn taking_over() -> OpenOptions {
    OpenOptions { takeover: true, ..eager() }
}

/// A bucket with an empty store.
pub fn new_store(sizes: Sizes) -> Bucket {
    let bucket = Bucket::new();
    create_in(bucket.handle(), sizes).expect("create");
    bucket
}

/// One opening of the store.
pub struct Machine {
    pub handle: Arc<Handle>,
    pub store: Store,
}

impl Machine {
    pub fn open(bucket: &Bucket, options: &OpenOptions) -> Result<Machine, OpenError> {
        Machine::open_by(bucket.handle(), options)
    }

    pub fn open_by(handle: Arc<Handle>, options: &OpenOptions) -> Result<Machine, OpenError> {
        Ok(Machine { store: Store::open_in(handle.clone(), options)?, handle })
    }

    /// Opens what nobody holds.
    #[track_caller]
    pub fn start(bucket: &Bucket) -> Machine {
        Machine::open(bucket, &eager()).unwrap_or_else(|error| panic!("open: {error}"))
    }

    #[track_caller]
    pub fn take_over(bucket: &Bucket) -> Machine {
        Machine::open(bucket, &taking_over()).unwrap_or_else(|error| panic!("take over: {error}"))
    }

    pub fn peer(&self) -> usize {
        self.handle.peer
    }

    /// Changes a key; not durable yet.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        let change = [Change::Put(key.as_bytes().to_vec(), value.as_bytes().to_vec())];
        commit(&self.store, &change).unwrap_or_else(|error| panic!("put {key}: {error}"));
    }

    /// Changes a key and makes it durable.
    pub fn save(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let change = [Change::Put(key.as_bytes().to_vec(), value.as_bytes().to_vec())];
        commit(&self.store, &change)?;
        answer(&self.begin_sync())
    }

    /// Saves so many keys, each with a commit of its own.
    #[track_caller]
    pub fn save_many(&self, prefix: &str, count: usize) {
        for number in 0..count {
            self.save(&format!("{prefix} {number}"), prefix).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        }
    }

    /// Asks for everything so far to be made durable.
    pub fn begin_sync(&self) -> Receiver<Result<(), StoreError>> {
        let (answer, answered) = channel();
        self.store.sync_then(Box::new(move |result| drop(answer.send(result))));
        answered
    }

    #[track_caller]
    pub fn get(&self, key: &str) -> Option<String> {
        let value = self.store.patiently(|| self.store.view().get(key.as_bytes())).expect("get")?;
        let view = self.store.view();
        let bytes = self.store.patiently(|| view.read(std::slice::from_ref(&value))).expect("read");
        Some(String::from_utf8(bytes[0].to_vec()).expect("text"))
    }

    #[track_caller]
    pub fn state(&self) -> State {
        read_state(&self.store).unwrap_or_else(|error| panic!("read: {error}"))
    }

    #[track_caller]
    pub fn close(self) {
        self.store.close().unwrap_or_else(|error| panic!("close: {error}"));
    }

    /// Its process ends, here and now.
    pub fn kill(self, on_the_way: OnTheWay) {
        self.handle.cut(Cut::killed(on_the_way));
    }

    /// Makes commits until what an epoch leaves behind is deleted.
    #[track_caller]
    pub fn clean(&self, bucket: &Bucket, epoch: u64) {
        for round in 0..50 {
            let seal = bucket.seal_of(epoch).expect("only what is sealed is cleaned");
            if bucket.commits_of(epoch).len() == 3.min(seal as usize) {
                return;
            }
            self.save("cleaning", &format!("{round}")).unwrap_or_else(|error| panic!("cleaning: {error}"));
        }
        panic!("epoch {epoch} is not cleaned: {:?}", bucket.commits_of(epoch));
    }
}

/// An answer that comes in time.
#[track_caller]
pub fn answer<T>(answers: &Receiver<T>) -> T {
    answers.recv_timeout(PATIENCE).expect("no answer")
}

/// Panics unless it says that the store was taken over.
#[track_caller]
pub fn assert_fenced(result: Result<(), StoreError>) -> Arc<str> {
    match result {
        Err(StoreError::Poisoned(cause)) => {
            assert!(cause.contains("taken over"), "{cause}");
            cause
        }
        other => panic!("must not be acknowledged: {other:?}"),
    }
}

/// An opening that goes on by itself.
pub struct Opening {
    handle: Arc<Handle>,
    thread: JoinHandle<Result<Store, OpenError>>,
}

impl Opening {
    /// `handle`: made before, so that gates can wait for it.
    pub fn begin(handle: Arc<Handle>, options: OpenOptions) -> Opening {
        let asked = handle.clone();
        let thread = std::thread::spawn(move || Store::open_in(asked, &options));
        Opening { handle, thread }
    }

    /// Begins, and is stopped where it sends such a request.
    #[track_caller]
    pub fn until(bucket: &Bucket, what: What, options: OpenOptions) -> (Opening, Held) {
        let handle = bucket.handle();
        let gate = bucket.gate(Filter::of(what).by(handle.peer), Point::Arrival);
        let opening = Opening::begin(handle, options);
        let held = gate.wait();
        (opening, held)
    }

    pub fn end(self) -> Result<Machine, OpenError> {
        let store = self.thread.join().expect("opening does not panic")?;
        Ok(Machine { handle: self.handle, store })
    }
}

/// What all that is there amounts to, to who takes it over now; all of it is whole.
#[track_caller]
pub fn final_state(medium: &impl Medium) -> State {
    let open = || medium.open(&eager()).unwrap_or_else(|error| panic!("open at the end: {error}"));
    let read = |store: &Store| read_state(store).unwrap_or_else(|error| panic!("read at the end: {error}"));
    let store = open();
    let state = read(&store);
    let change = [Change::Put(b"usable".to_vec(), b"yes".to_vec())];
    commit(&store, &change).unwrap_or_else(|error| panic!("commit at the end: {error}"));
    store.close().unwrap_or_else(|error| panic!("close at the end: {error}"));
    drop(store);
    assert_whole(medium, "at the end");
    let mut found = read(&open());
    assert!(found.remove(&b"usable"[..]).is_some());
    let mut expected = state.clone();
    expected.remove(&b"usable"[..]);
    assert!(found == expected, "{}", difference(&found, &expected));
    state
}

/// A store with an open epoch of a few commits, and its writer.
pub fn with_writer() -> (Bucket, Machine) {
    let bucket = new_store(SMALL);
    let writer = Machine::start(&bucket);
    writer.save_many("w", 5);
    (bucket, writer)
}

/// The seal's or commit's place in the epoch that is open.
pub fn next_place(bucket: &Bucket) -> (u64, u64) {
    let epoch = bucket.epoch();
    (epoch, bucket.commits_of(epoch).last().expect("an epoch begins with a commit") + 1)
}

pub fn is_seal(bucket: &Bucket, (epoch, number): (u64, u64)) -> bool {
    bucket.body(&commit_name(epoch, number)).is_some_and(|body| body.starts_with(SEAL_MAGIC))
}

#[track_caller]
pub fn refused(opening: Opening) {
    match opening.end() {
        Err(OpenError::InUse { holder, .. }) => {
            assert!(holder.remote && holder.here && holder.pid == std::process::id(), "{holder:?}");
        }
        Err(error) => panic!("refused, but: {error}"),
        Ok(_) => panic!("two have the store"),
    }
}

#[track_caller]
pub fn assert_holds(bucket: &Bucket, key: &str, value: Option<&str>) {
    let state = final_state(bucket);
    assert_eq!(state.get(key.as_bytes()).map(Vec::as_slice), value.map(str::as_bytes), "{key}");
}

/// What becomes of a claim whose taker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateClaim {
    Lost,
    BeforeTheNext,
    AfterTheNext,
}
