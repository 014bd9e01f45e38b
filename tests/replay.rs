//! Opening a store that was not closed: short changes wait beside the leaves that they are of.

mod support;

use kivafs::backend::{Disk, MemoryDisk, Objects};
use kivafs::store::{CreateOptions, Geometry, OpenOptions, Store, StoreError};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use support::bucket::Bucket;
use support::crash_disk::{Call, CrashDisk, Effort};
use support::random::Random;
use support::store::{Change, State, apply, commit, difference, read_only, read_state, unhurried};

/// What becomes of the checkpoint thread's reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    Waits,
    /// When so many bytes have been read.
    WaitsAfter(usize),
    Fails,
    Open,
}

/// A disk where leaves stay behind until it is opened.
struct Gate {
    below: MemoryDisk,
    state: Mutex<Seen>,
    changed: Condvar,
}

/// What has passed, and what may.
struct Seen {
    passage: Passage,
    failed_reads: usize,
    /// By the checkpoint thread.
    read_bytes: usize,
    /// The end of what was written that lies farthest behind.
    written_to: u64,
}

impl Gate {
    fn new(image: Vec<u8>, passage: Passage) -> Arc<Gate> {
        Arc::new(Gate {
            below: MemoryDisk::from_bytes(image),
            state: Mutex::new(Seen { passage, failed_reads: 0, read_bytes: 0, written_to: 0 }),
            changed: Condvar::new(),
        })
    }

    fn open(&self) {
        self.state.lock().passage = Passage::Open;
        self.changed.notify_all();
    }

    fn until_failed(&self, reads: usize) {
        self.changed.wait_while(&mut self.state.lock(), |seen| seen.failed_reads < reads);
    }

    fn until_read(&self, bytes: usize) {
        self.changed.wait_while(&mut self.state.lock(), |seen| seen.read_bytes <= bytes);
    }

    fn until_written_behind(&self, offset: u64) {
        let is_missing = |seen: &mut Seen| seen.written_to <= offset;
        let limit = Duration::from_secs(60);
        if self.changed.wait_while_for(&mut self.state.lock(), is_missing, limit).timed_out() {
            // Dropping the store waits for who waits here.
            self.open();
            panic!("nothing was written there");
        }
    }
}

impl Disk for Gate {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if std::thread::current().name() == Some("kivafs-checkpoint") {
            let mut state = self.state.lock();
            if state.passage == Passage::Fails {
                state.failed_reads += 1;
                self.changed.notify_all();
                return Err(io::Error::other("no luck"));
            }
            state.read_bytes += buffer.len();
            self.changed.notify_all();
            let has_to_wait = |seen: &mut Seen| match seen.passage {
                Passage::WaitsAfter(bytes) => seen.read_bytes > bytes,
                passage => passage != Passage::Open,
            };
            self.changed.wait_while(&mut state, has_to_wait);
        }
        self.below.read_at(offset, buffer)
    }

    fn reread(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.reread(offset, length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.below.write_at(offset, bytes)?;
        let mut state = self.state.lock();
        state.written_to = state.written_to.max(offset + bytes.len() as u64);
        self.changed.notify_all();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.below.sync()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.allocate(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.punch(offset, length)
    }

    fn free_space(&self) -> io::Result<u64> {
        self.below.free_space()
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

/// Puts, and deletes of what may be there; some values are too long for a leaf.
fn change(store: &Store, map: &mut State, random: &mut Random, count: usize) {
    for _ in 0..count {
        let key = key(random.within(0..PAIRS + PAIRS / 10));
        let change = match random.within(0..100) {
            0..30 => Change::Delete(key),
            30..98 => {
                let length = random.within(0..80);
                Change::Put(key, random.bytes(length))
            }
            _ => {
                let length = random.within(2000..9000);
                Change::Put(key, random.bytes(length))
            }
        };
        make(store, map, &[change]);
    }
}

fn make(store: &Store, map: &mut State, changes: &[Change]) {
    commit(store, changes).unwrap();
    apply(map, changes);
}

const PAIRS: usize = 100_000;

/// The image of a store that was not closed.
fn killed(random: &mut Random) -> (Vec<u8>, State) {
    let disk = Arc::new(MemoryDisk::default());
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    let map = fill(&store, random);
    (disk.to_bytes(), map)
}

/// Many pairs, and some thousand changes behind the checkpoint.
fn fill(store: &Store, random: &mut Random) -> State {
    let mut map = State::new();
    for number in 0..PAIRS {
        map.insert(key(number), format!("the value of {number}").into_bytes());
    }
    for some in map.iter().collect::<Vec<_>>().chunks(1000) {
        let mut txn = store.begin().unwrap();
        some.iter().for_each(|(key, value)| txn.put(key, (*value).clone()));
        txn.commit().unwrap();
    }
    store.checkpoint().unwrap();
    change(store, &mut map, random, 2000);
    // One leaf after another that loses all it has.
    for number in PAIRS / 2..PAIRS / 2 + 600 {
        make(store, &mut map, &[Change::Delete(key(number))]);
    }
    store.sync().unwrap();
    map
}

fn read(store: &Store, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    store.patiently(|| {
        let view = store.view();
        let bytes = view.get(key)?.map(|value| view.read(&[value])).transpose()?;
        Ok(bytes.map(|bytes| bytes[0].to_vec()))
    })
}

fn assert_holds(store: &Store, map: &State) {
    let found = read_state(store).unwrap();
    assert!(found == *map, "{}", difference(&found, map));
}

#[test]
fn a_store_opens_without_reading_its_leaves() {
    let mut random = Random::new(1);
    let (image, mut map) = killed(&mut random);
    let eager = Store::open_on(Arc::new(MemoryDisk::from_bytes(image.clone())), &read_only()).unwrap();
    let reads_all = eager.activity().reads;
    let disk = Gate::new(image, Passage::Waits);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    let reads = store.activity().reads;
    disk.open();
    assert!(reads * 4 < reads_all, "{reads} pages were read, and there are {reads_all} that changes are of");
    // What is asked for is as it was left, whether its leaf has caught up or not; and it can be changed and
    // synced as any other.
    for number in (0..PAIRS).step_by(97) {
        let found = read(&store, &key(number)).unwrap();
        assert_eq!(found.as_ref(), map.get(&key(number)));
    }
    change(&store, &mut map, &mut random, 500);
    store.sync().unwrap();
    assert_holds(&store, &map);
    store.checkpoint().unwrap();
    assert_holds(&store, &map);
    assert_eq!(store.check(true), Vec::<String>::new());
    store.close().unwrap();
    drop(store);
    let image = MemoryDisk::from_bytes(disk.below.to_bytes());
    assert_eq!(Store::check_on(Arc::new(image), true).unwrap(), Vec::<String>::new());
}

/// At any moment of that, since nobody waits for it.
#[test]
fn a_store_that_dies_while_leaves_are_behind_is_what_it_was() {
    let mut random = Random::new(2);
    let (mut image, mut map) = killed(&mut random);
    for round in 0..30 {
        let disk = Arc::new(MemoryDisk::from_bytes(image));
        let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
        for _ in 0..random.within(0..60) {
            let key = key(random.within(0..PAIRS));
            assert_eq!(read(&store, &key).unwrap().as_ref(), map.get(&key), "round {round}");
        }
        change(&store, &mut map, &mut random, 40);
        store.sync().unwrap();
        assert_eq!(store.check(false), Vec::<String>::new(), "round {round}");
        image = disk.to_bytes();
    }
    let store = Store::open_on(Arc::new(MemoryDisk::from_bytes(image)), &unhurried()).unwrap();
    assert_holds(&store, &map);
    store.close().unwrap();
    assert_eq!(store.check(true), Vec::<String>::new());
}

/// A disk may fail once: what is only read is no reason to give the store up.
#[test]
fn reading_leaves_is_tried_again() {
    let mut random = Random::new(5);
    let (image, map) = killed(&mut random);
    let disk = Gate::new(image, Passage::Fails);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    // All at once, and then the first of them by itself.
    disk.until_failed(2);
    disk.open();
    store.checkpoint().unwrap();
    assert_holds(&store, &map);
    store.close().unwrap();
}

/// There each request takes a round trip, and costs: leaves come when a checkpoint needs them, many at once.
#[test]
fn in_a_bucket_few_requests_bring_the_leaves() {
    let mut random = Random::new(4);
    let bucket = Bucket::new();
    Store::create_in(bucket.handle(), &CreateOptions::default()).unwrap();
    let dying = Store::open_in(bucket.handle(), &unhurried()).unwrap();
    let mut map = fill(&dying, &mut random);
    let handle = bucket.handle();
    let store = Store::open_in(handle.clone(), &OpenOptions { takeover: true, ..unhurried() }).unwrap();
    drop(dying);
    let at_opening = (handle.usage().gets, store.activity().reads);
    let found = read(&store, &key(7)).unwrap();
    assert_eq!(found.as_ref(), map.get(&key(7)));
    store.checkpoint().unwrap();
    let (gets, reads) = (handle.usage().gets - at_opening.0, store.activity().reads - at_opening.1);
    assert!(
        at_opening.0 < 20 && gets < 20 && reads > 400,
        "{at_opening:?} at opening, then {gets} GETs of {reads} pages"
    );
    change(&store, &mut map, &mut random, 100);
    store.sync().unwrap();
    assert_holds(&store, &map);
    assert_eq!(store.check(true), Vec::<String>::new());
    store.close().unwrap();
}

/// It is not known to be damaged before it is read; but then no checkpoint can ever be made again.
#[test]
fn a_damaged_leaf_that_is_behind_leaves_the_rest_to_be_read() {
    let mut random = Random::new(3);
    let (image, map) = killed(&mut random);
    let opened =
        |image: &[u8], options: &OpenOptions| Store::open_on(Arc::new(MemoryDisk::from_bytes(image.to_vec())), options);
    // Of a leaf that a change is of; not one that has to be read at once, nor one that has lost all its keys.
    let (store, right, damaged) = (0..500)
        .find_map(|_| {
            let mut wrong = image.clone();
            let at = random.within((16 << 20)..wrong.len());
            wrong[at] ^= 1;
            let store = opened(&wrong, &read_only()).is_err().then(|| opened(&wrong, &unhurried()).ok()).flatten()?;
            let (mut right, mut damaged) = (0, 0);
            for (key, value) in &map {
                match read(&store, key) {
                    Ok(found) => {
                        assert_eq!(found.as_ref(), Some(value));
                        right += 1;
                    }
                    Err(StoreError::Damaged(_)) => damaged += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            (damaged > 0).then_some((store, right, damaged))
        })
        .expect("some of these bytes are of leaves");
    assert!(right > damaged * 20, "{right} right, {damaged} damaged");
    assert!(matches!(store.checkpoint(), Err(StoreError::Poisoned(_) | StoreError::Damaged(_))));
    assert!(matches!(store.sync(), Err(StoreError::Poisoned(_))));
    assert!(read(&store, &key(0)).is_ok() || read(&store, &key(PAIRS - 1)).is_ok());
}

/// As many pairs, of that geometry, each of 200 bytes; and every so many-th of them changed since the checkpoint,
/// with more memory than whoever opens it next.
fn killed_with_much_changed(random: &mut Random, geometry: Geometry, pairs: usize, every: usize) -> (Vec<u8>, State) {
    let disk = Arc::new(MemoryDisk::default());
    Store::create_on(disk.clone(), &CreateOptions { geometry: Some(geometry), ..CreateOptions::default() }).unwrap();
    let store = Store::open_on(disk.clone(), &OpenOptions { cache_bytes: 64 << 20, ..unhurried() }).unwrap();
    let mut map = State::new();
    let all: Vec<Change> = (0..pairs).map(|number| Change::Put(key(number), random.bytes(200))).collect();
    all.chunks(50).for_each(|some| make(&store, &mut map, some));
    store.checkpoint().unwrap();
    let stored = store.activity();
    let some: Vec<Change> = (0..pairs).step_by(every).map(|number| Change::Put(key(number), random.bytes(2))).collect();
    some.chunks(50).for_each(|some| make(&store, &mut map, some));
    store.sync().unwrap();
    assert_eq!(store.activity().data_bytes, stored.data_bytes, "there was another checkpoint");
    (disk.to_bytes(), map)
}

/// C6: whoever comes after one that had much memory may have little. All leaves with redo were in memory until the
/// first checkpoint.
#[test]
fn leaves_that_have_caught_up_are_stored_before_all_of_them_have() {
    let mut random = Random::new(6);
    let geometry = Geometry { ring_bytes: 8 << 20, ring_at_first: 8 << 20, segment_bytes: 256 << 10, page_bytes: 4096 };
    let (image, map) = killed_with_much_changed(&mut random, geometry, 40_000, 8);
    let end = image.len() as u64;
    let read_bytes = 5 << 20;
    let disk = Gate::new(image, Passage::WaitsAfter(read_bytes));
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    disk.until_read(read_bytes);
    let changed = store.figures().changed_bytes;
    disk.until_written_behind(end);
    let half_way = disk.below.to_bytes();
    disk.open();
    // Leaves have some 8 MiB together. Of those that were read 2 MiB at most are in memory, and what is waited for.
    assert!(changed < 6 << 20, "{changed} bytes are changed");
    assert_holds(&store, &map);
    store.checkpoint().unwrap();
    assert_holds(&store, &map);
    assert_eq!(store.check(true), Vec::<String>::new());
    store.close().unwrap();
    let killed = Store::open_on(Arc::new(MemoryDisk::from_bytes(half_way)), &unhurried()).unwrap();
    assert_holds(&killed, &map);
    killed.close().unwrap();
    assert_eq!(killed.check(true), Vec::<String>::new());
}

/// They are no checkpoint: until there is one, each crash leaves what there was before.
#[test]
fn leaves_that_are_stored_early_mean_nothing_to_a_crash() {
    let mut random = Random::new(7);
    let geometry =
        Geometry { ring_bytes: 768 << 10, ring_at_first: 768 << 10, segment_bytes: 16 << 10, page_bytes: 1 << 10 };
    let (image, map) = killed_with_much_changed(&mut random, geometry, 5_000, 4);
    let disk = Arc::new(CrashDisk::from_bytes(image));
    // In a small store little may be changed at once: here 512 KiB.
    let small = OpenOptions { size_max: Some(4 << 20), ..unhurried() };
    let store = Store::open_on(disk.clone(), &small).unwrap();
    store.checkpoint().unwrap();
    assert_holds(&store, &map);
    drop(store);
    let journal = disk.journal();
    // Bytes of data between one write to the ring and the next: behind the commit that begins the epoch, and behind
    // the one that freezes the tree.
    let mut runs = vec![0];
    for call in journal.calls() {
        match call {
            Call::Write { offset, bytes } if *offset as u64 >= geometry.slots_offset() => {
                *runs.last_mut().unwrap() += bytes.len() >> 10;
            }
            Call::Write { .. } if runs.last() != Some(&0) => runs.push(0),
            _ => {}
        }
    }
    assert!(runs[0] > 300 && runs[1] > 100, "KiB that were stored early, and behind that: {runs:?}");
    let effort = Effort { cuts_max: 80, fates_max: 4, shuffled: 1, seed: 7 };
    let tried = journal.for_each_image(
        effort,
        |_| 0,
        |image| {
            let context = format!("cut {}, {:?}", image.cut, image.fate);
            let disk = Arc::new(MemoryDisk::from_bytes(image.bytes));
            let store = Store::open_on(disk, &small).unwrap_or_else(|error| panic!("{context}: {error}"));
            let found = read_state(&store).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(found == map, "{context}: {}", difference(&found, &map));
            store.close().unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(store.check(true), Vec::<String>::new(), "{context}");
        },
    );
    assert!(tried.images > 40, "{tried:?}");
}
