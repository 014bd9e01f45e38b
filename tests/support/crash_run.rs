//! A store on a medium that crashes, and what its images are held to: the state after some transaction,
//! no older than what had been acknowledged as durable before the cut (C1, C2), nothing that was not
//! asked for by then; whole; and usable.

use super::crash_disk::{Effort, Tried};
use super::medium::{CrashMedium, Image, assert_whole};
use super::random::Random;
use super::store::{Change, Sizes, State, apply, commit, difference, random_changes, read_state};
use kivafs::store::{OpenError, OpenOptions, Store, StoreError};

/// One history of a store.
pub struct CrashRun<M> {
    pub medium: M,
    /// After each transaction; the first is what was there before.
    states: Vec<State>,
    /// Where in the journal the commit of each transaction began.
    begun_at: Vec<usize>,
    /// Where in the journal it was acknowledged that this many transactions are durable.
    durable: Vec<(usize, usize)>,
    /// Where in the journal the store was there.
    created_at: usize,
}

impl<M: CrashMedium> CrashRun<M> {
    /// An empty medium, and a store made on it.
    pub fn create(sizes: Sizes) -> CrashRun<M> {
        CrashRun::create_on(M::empty(), sizes)
    }

    /// A store made on an empty medium.
    pub fn create_on(medium: M, sizes: Sizes) -> CrashRun<M> {
        medium.create(sizes).expect("create");
        let created_at = medium.position();
        CrashRun { created_at, ..CrashRun::on(medium, State::new()) }
    }

    /// A store that is there and holds this.
    pub fn on(medium: M, state: State) -> CrashRun<M> {
        CrashRun { medium, states: vec![state], begun_at: vec![0], durable: vec![(0, 0)], created_at: 0 }
    }

    /// The store that a crash left, and what it holds.
    pub fn after(image: Image<M>, state: State) -> CrashRun<M> {
        CrashRun::on(image.medium, state)
    }

    pub fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        self.medium.open(options)
    }

    /// The state after the last transaction.
    pub fn state(&self) -> &State {
        self.states.last().expect("there is always one")
    }

    /// What a crash may leave now, as far as anybody was told.
    pub fn states_since_sync(&self) -> &[State] {
        let durable = self.durable.last().map_or(0, |(_, count)| *count);
        &self.states[durable..]
    }

    /// Commits; a transaction that is refused must leave nothing.
    pub fn commit(&mut self, store: &Store, changes: &[Change]) -> Result<(), StoreError> {
        let position = self.medium.position();
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
        self.durable.push((self.medium.position(), self.states.len() - 1));
    }

    /// Random transactions, syncs and cleanings now and then, closing and opening sometimes; open at the end.
    pub fn work(&mut self, seed: u64, sizes: Sizes, steps: usize, options: &OpenOptions) -> Store {
        let mut random = Random::new(seed);
        let mut store = self.open(options).expect("open");
        for step in 0..steps {
            let done = match random.within(0..14) {
                0..8 => self.commit(&store, &random_changes(&mut random, sizes)),
                8..11 => self.sync(&store),
                11 | 12 => store.clean().map(drop),
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
    pub fn verify(&self, effort: Effort, options: &OpenOptions, mut then: impl FnMut(Image<M>, State)) -> Tried {
        let demand = |cut: usize| self.durable_before(cut) as u64 * 2 + u64::from(cut >= self.created_at);
        self.medium.for_each_image(effort, demand, |image| {
            let context = format!("cut {} of {}, {:?}", image.cut, self.medium.position(), image.fate);
            if let Some((image, state)) = self.verify_image(image, options, &context) {
                then(image, state);
            }
        })
    }

    /// Transactions known to be durable when so many calls had been made.
    fn durable_before(&self, cut: usize) -> usize {
        self.durable.iter().filter(|(position, _)| *position <= cut).map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// The image and what it held; nothing if it may be no store yet, and is none.
    fn verify_image(&self, image: Image<M>, options: &OpenOptions, context: &str) -> Option<(Image<M>, State)> {
        // What is handed on is as the crash left it.
        let medium = image.medium.left_by_kill();
        let store = match medium.open(options) {
            Ok(store) => store,
            Err(OpenError::NotAStore(_) | OpenError::NotFound(_)) if image.cut < self.created_at => return None,
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
        let image = match image.medium.is_settled() {
            true => image,
            false => Image { medium: medium.left_by_kill(), ..image },
        };
        self.verify_usable(store, &medium, &found, options, context);
        Some((image, found))
    }

    /// A recovered store takes a change, keeps it when its process is killed, and is whole.
    fn verify_usable(&self, store: Store, medium: &M, found: &State, options: &OpenOptions, context: &str) {
        let change = [Change::Put(b"written after the crash".to_vec(), vec![7; 50])];
        commit(&store, &change).unwrap_or_else(|error| panic!("{context}: commit: {error}"));
        store.sync().unwrap_or_else(|error| panic!("{context}: sync: {error}"));
        // The store is not closed: its process is killed.
        let medium = medium.left_by_kill();
        drop(store);
        let mut expected = found.clone();
        apply(&mut expected, &change);
        let store = medium.open(options).unwrap_or_else(|error| panic!("{context}: reopen: {error}"));
        let found = read_state(&store).unwrap_or_else(|error| panic!("{context}: read again: {error}"));
        assert!(found == expected, "{context}: reopened: {}", difference(&found, &expected));
        store.close().unwrap_or_else(|error| panic!("{context}: close: {error}"));
        drop(store);
        assert_whole(&medium, context);
    }
}
