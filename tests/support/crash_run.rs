//! A store on a crash disk, and what its images are held to: the state after some transaction, no
//! older than what had been acknowledged as durable before the cut (C1, C2), nothing that was not
//! asked for by then; whole; and usable.

use super::crash_disk::{CrashDisk, Effort, Image, Tried};
use super::random::Random;
use super::store::{Change, Sizes, State, apply, assert_whole, commit, create, difference, random_changes, read_state};
use kivafs::backend::{Disk, MemoryDisk};
use kivafs::store::{OpenError, OpenOptions, Store, StoreError};
use std::sync::Arc;

/// One history of a store.
pub struct CrashRun {
    pub disk: Arc<CrashDisk>,
    /// What the store talks to: the crash disk, or a decorator over it.
    pub front: Arc<dyn Disk>,
    /// After each transaction; the first is what was there before.
    states: Vec<State>,
    /// Where in the journal the commit of each transaction began.
    begun_at: Vec<usize>,
    /// Where in the journal it was acknowledged that this many transactions are durable.
    durable: Vec<(usize, usize)>,
    /// Where in the journal the store was there.
    created_at: usize,
}

impl CrashRun {
    /// An empty disk, and a store made on it.
    pub fn create(sizes: Sizes) -> CrashRun {
        let disk = Arc::new(CrashDisk::from_bytes(Vec::new()));
        create(disk.clone(), sizes).expect("create");
        let created_at = disk.position();
        CrashRun { created_at, ..CrashRun::on(disk.clone(), disk, State::new()) }
    }

    /// A store that is there and holds this.
    pub fn on(disk: Arc<CrashDisk>, front: Arc<dyn Disk>, state: State) -> CrashRun {
        CrashRun { disk, front, states: vec![state], begun_at: vec![0], durable: vec![(0, 0)], created_at: 0 }
    }

    /// The store that a crash left, and what it holds.
    pub fn after(image: Image, state: State) -> CrashRun {
        let disk = Arc::new(CrashDisk::from_bytes(image.bytes));
        CrashRun::on(disk.clone(), disk, state)
    }

    pub fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        Store::open_on(self.front.clone(), options)
    }

    /// The state after the last transaction.
    pub fn state(&self) -> &State {
        self.states.last().expect("there is always one")
    }

    /// Commits; a transaction that is refused must leave nothing.
    pub fn commit(&mut self, store: &Store, changes: &[Change]) -> Result<(), StoreError> {
        let position = self.disk.position();
        commit(store, changes)?;
        let mut state = self.state().clone();
        apply(&mut state, changes);
        self.states.push(state);
        self.begun_at.push(position);
        Ok(())
    }

    pub fn sync(&mut self, store: &Store) -> Result<(), StoreError> {
        store.sync()?;
        self.note_durable();
        Ok(())
    }

    pub fn close(&mut self, store: Store) -> Result<(), StoreError> {
        store.close()?;
        self.note_durable();
        Ok(())
    }

    fn note_durable(&mut self) {
        self.durable.push((self.disk.position(), self.states.len() - 1));
    }

    /// Random transactions, syncs now and then, closing and opening sometimes; open at the end.
    pub fn work(&mut self, seed: u64, sizes: Sizes, steps: usize, options: &OpenOptions) -> Store {
        let mut random = Random::new(seed);
        let mut store = self.open(options).expect("open");
        for step in 0..steps {
            let done = match random.within(0..12) {
                0..8 => self.commit(&store, &random_changes(&mut random, sizes)),
                8..11 => self.sync(&store),
                _ => {
                    let closed = self.close(store);
                    store = self.open(options).expect("open again");
                    closed
                }
            };
            done.unwrap_or_else(|error| panic!("step {step}: {error}"));
        }
        store
    }

    /// Holds every image of the journal so far to what it must be. Hands each that was recovered,
    /// with what it held, to `then`.
    pub fn verify(&self, effort: Effort, options: &OpenOptions, mut then: impl FnMut(Image, State)) -> Tried {
        let demand = |cut: usize| self.durable_before(cut) as u64 * 2 + u64::from(cut >= self.created_at);
        self.disk.journal().for_each_image(effort, demand, |image| {
            let context = format!("cut {} of {}, {:?}", image.cut, self.disk.position(), image.fate);
            if let Some(state) = self.verify_image(&image, options, &context) {
                then(image, state);
            }
        })
    }

    /// Transactions known to be durable when so many calls had been made.
    fn durable_before(&self, cut: usize) -> usize {
        self.durable.iter().filter(|(position, _)| *position <= cut).map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// What the image held; nothing if it may be no store yet, and is none.
    fn verify_image(&self, image: &Image, options: &OpenOptions, context: &str) -> Option<State> {
        let disk = Arc::new(MemoryDisk::from_bytes(image.bytes.clone()));
        let store = match Store::open_on(disk.clone(), options) {
            Ok(store) => store,
            Err(OpenError::NotAStore(_)) if image.cut < self.created_at => return None,
            Err(error) => panic!("{context}: open: {error}"),
        };
        let found = read_state(&store).unwrap_or_else(|error| panic!("{context}: read: {error}"));
        let least = self.durable_before(image.cut);
        let most = self.begun_at.iter().rposition(|position| *position <= image.cut).unwrap_or(0);
        if !self.states[least..=most].contains(&found) {
            let elsewhere = self.states.iter().position(|state| *state == found);
            panic!(
                "{context}: not the state after one of the transactions {least} to {most} but {}; against {least}: {}",
                elsewhere.map_or("after none".to_owned(), |index| format!("after {index}")),
                difference(&found, &self.states[least])
            );
        }
        self.verify_usable(store, disk, &found, options, context);
        Some(found)
    }

    /// A recovered store takes a change, keeps it when its process is killed, and is whole.
    fn verify_usable(&self, store: Store, disk: Arc<MemoryDisk>, found: &State, options: &OpenOptions, context: &str) {
        let change = [Change::Put(b"written after the crash".to_vec(), vec![7; 50])];
        commit(&store, &change).unwrap_or_else(|error| panic!("{context}: commit: {error}"));
        store.sync().unwrap_or_else(|error| panic!("{context}: sync: {error}"));
        // A copy, since the store is not closed: its process is killed.
        let disk = Arc::new(MemoryDisk::from_bytes(disk.to_bytes()));
        drop(store);
        let mut expected = found.clone();
        apply(&mut expected, &change);
        let store = Store::open_on(disk.clone(), options).unwrap_or_else(|error| panic!("{context}: reopen: {error}"));
        let found = read_state(&store).unwrap_or_else(|error| panic!("{context}: read again: {error}"));
        assert!(found == expected, "{context}: reopened: {}", difference(&found, &expected));
        store.close().unwrap_or_else(|error| panic!("{context}: close: {error}"));
        drop(store);
        assert_whole(disk, context);
    }
}
