//! The library's public API: views, transactions, sync.
//!
//! # Contract
//!
//! * **Misses.** Reading methods never wait for storage. What is not in memory is
//!   [`StoreError::Miss`]: nothing has changed; [`Store::fetch`] it (that may wait) and ask again
//!   from the start. [`Store::patiently`] does so in a loop. Thus no lock is ever held across I/O.
//! * **Views.** [`Store::view`] is the state after the last committed transaction, whole and
//!   immutable; taking one costs about as much as cloning an `Arc`. Hold it briefly: space that
//!   was freed since is not reused while it lives.
//! * **Transactions.** [`Store::begin`] takes the one writer lock; dropping the [`Txn`] abandons
//!   it; [`Txn::commit`] applies all its changes at once (atomically, also with respect to
//!   crashes) and makes them visible to later views. They are *acknowledged*, not yet durable.
//! * **Durability.** [`Store::sync`] returns Ok when everything committed before the call is
//!   durable. What a crash leaves is the state after some transaction, no older than the last
//!   successful sync.
//! * **Failure.** After a definite failure of storage the store is poisoned: transactions and
//!   syncs get [`StoreError::Poisoned`] with the first cause, views go on.

mod open;

pub use open::{Compression, CreateOptions, Holder, Info, OpenError, OpenOptions};

use crate::tree::{Extent, Value};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use thiserror::Error;

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Rising keys.
    Forward,
    /// Falling keys.
    Backward,
}

/// What was not in memory. Opaque: hand it to [`Store::fetch`].
#[derive(Clone, Debug)]
pub struct Miss(pub(crate) Vec<crate::log::Pointer>);

/// What can go wrong, by what the caller does next.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Not in memory: fetch it and ask again.
    #[error("not in memory")]
    Miss(Miss),
    /// The disk, or the size given at creation, is full. Nothing has changed.
    #[error("no space left for the store")]
    NoSpace,
    /// The store was opened for reading only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// Storage failed earlier; nothing more is accepted.
    #[error("the store takes no more changes since: {0}")]
    Poisoned(Arc<str>),
    /// Stored bytes are wrong.
    #[error("damaged: {0}")]
    Damaged(Arc<str>),
    /// Reading failed.
    #[error("cannot read: {0}")]
    Io(Arc<str>),
}

/// How full a store is, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// What the store may come to occupy: its own size plus what its disk has free, or the size
    /// given at creation.
    pub total: u64,
    /// What live data occupies.
    pub used: u64,
    /// What can still be written.
    pub free: u64,
}

type Map = BTreeMap<Vec<u8>, Value>;

/// An open store. Usable from any number of threads.
pub struct Store {
    map: Mutex<Arc<Map>>,
    pending: Mutex<BTreeSet<Vec<u8>>>,
    writer: Mutex<()>,
}

/// One consistent state.
#[derive(Clone)]
pub struct View {
    map: Arc<Map>,
}

/// A transaction: reads the newest state and its own changes.
pub struct Txn<'a> {
    store: &'a Store,
    _guard: MutexGuard<'a, ()>,
    changes: BTreeMap<Vec<u8>, Option<Value>>,
}

impl Store {
    /// A store in memory.
    pub fn in_memory() -> Store {
        Store { map: Mutex::default(), pending: Mutex::default(), writer: Mutex::new(()) }
    }

    /// The state after the last committed transaction.
    pub fn view(&self) -> View {
        View { map: self.map.lock().clone() }
    }

    /// Waits for the writer lock (held for microseconds: see Misses) and begins.
    pub fn begin(&self) -> Result<Txn<'_>, StoreError> {
        Ok(Txn { store: self, _guard: self.writer.lock(), changes: BTreeMap::new() })
    }

    /// Brings what was missing into memory. Waits for storage.
    pub fn fetch(&self, _miss: &Miss) -> Result<(), StoreError> {
        Ok(())
    }

    /// Runs `operation` until it no longer misses. Waits for storage.
    pub fn patiently<T, E: AsMiss>(&self, mut operation: impl FnMut() -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError>,
    {
        loop {
            match operation() {
                Err(error) => match error.as_miss() {
                    Some(miss) => self.fetch(miss)?,
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// Waits until everything committed so far is durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.pending.lock().clear();
        Ok(())
    }

    /// Calls `done` once everything committed so far is durable, or cannot become so. Does not
    /// wait; `done` runs on another thread (or on this one, before the call returns) and must not
    /// wait either.
    pub fn sync_then(&self, done: Box<dyn FnOnce(Result<(), StoreError>) + Send>) {
        done(self.sync());
    }

    /// Waits until what was accepted and not yet stored is below the in-flight limit: the only
    /// back-pressure. Call it before taking in bulk data, with no lock held.
    pub fn wait_for_room(&self) {}

    /// How full it is.
    pub fn space(&self) -> Space {
        Space { total: 1 << 40, used: 0, free: 1 << 40 }
    }

    /// Makes everything durable and ends. The result tells whether everything is.
    pub fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Errors that may be a [`Miss`].
pub trait AsMiss {
    /// The miss, if it is one.
    fn as_miss(&self) -> Option<&Miss>;
}

impl AsMiss for StoreError {
    fn as_miss(&self) -> Option<&Miss> {
        match self {
            StoreError::Miss(miss) => Some(miss),
            _ => None,
        }
    }
}

impl View {
    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        Ok(self.map.get(key).cloned())
    }

    /// Calls `visit` with every pair between the bounds, in order, until it breaks. After a miss
    /// the pairs visited so far have been visited.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if let (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) = (from, to)
            && a >= b
        {
            return Ok(());
        }
        let mut range = self.map.range::<[u8], _>((from, to));
        while let Some((key, value)) = match direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        } {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The bytes that these values stand for, in the same order. One miss names everything that
    /// is not in memory, so that it is fetched in few reads.
    pub fn read(&self, values: &[Value]) -> Result<Vec<Bytes>, StoreError> {
        Ok(values
            .iter()
            .map(|value| match value {
                Value::Bytes(bytes) => bytes.clone(),
                Value::Extent(Extent { .. }) => unreachable!("nothing is placed in memory"),
            })
            .collect())
    }
}

impl Txn<'_> {
    /// The value of `key`, this transaction's own changes included.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.store.view().get(key),
        }
    }

    /// Like [`View::scan`], over the state *before* this transaction: its own changes are not
    /// seen.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.store.view().scan(from, to, direction, visit)
    }

    /// Like [`View::read`].
    pub fn read(&self, values: &[Value]) -> Result<Vec<Bytes>, StoreError> {
        self.store.view().read(values)
    }

    /// Whether the value of `key` was put since the last commit to storage began. To put it again
    /// then adds nothing to what that commit writes but the difference in length; a value for
    /// which this is false is written anew as a whole.
    pub fn is_uncommitted(&self, key: &[u8]) -> bool {
        self.store.pending.lock().contains(key)
    }

    /// Sets `key` (1 to [`KEY_MAX`](crate::tree::KEY_MAX) bytes) to `value` (at most
    /// [`VALUE_MAX`](crate::tree::VALUE_MAX) bytes; longer is a caller's bug and panics).
    pub fn put(&mut self, key: &[u8], value: impl Into<Value>) {
        let value = value.into();
        assert!((1..=crate::tree::KEY_MAX).contains(&key.len()) && value.len() <= crate::tree::VALUE_MAX);
        self.changes.insert(key.to_vec(), Some(value));
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, key: &[u8]) {
        self.changes.insert(key.to_vec(), None);
    }

    /// Applies the changes: all, or (with an error) none. At most
    /// [`TXN_BYTES_MAX`] bytes of keys and values; more is a caller's bug and panics.
    pub fn commit(self) -> Result<(), StoreError> {
        let mut pending = self.store.pending.lock();
        let mut map = self.store.map.lock();
        let map = Arc::make_mut(&mut map);
        for (key, change) in self.changes {
            pending.insert(key.clone());
            match change {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }
}

/// Most bytes of keys and values in one transaction: what a commit has room for.
pub const TXN_BYTES_MAX: usize = 2 << 20;
