//! Fetching: once for all who ask, beforehand, in few requests, and never more than a bounded amount.

mod support;

use bytes::Bytes;
use kivafs::backend::{Done, MemoryDisk, ObjectError, Objects, Usage};
use kivafs::store::{CreateOptions, Direction, Geometry, OpenOptions, Store, StoreError, Value};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, Range};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};
use support::random::Random;

const SEGMENT_BYTES: u32 = 1 << 20;
const UNIT_BYTES: usize = 64 << 10;
const UNITS: usize = 320;

/// A bucket in memory, whose reads of data can be held back.
#[derive(Default)]
struct HeldBucket {
    state: Mutex<State>,
    changed: Condvar,
}

type Contents = BTreeMap<String, Bytes>;
/// Answers what was held back.
type Answer = Box<dyn FnOnce(&Contents) + Send>;

#[derive(Default)]
struct State {
    objects: Contents,
    gets: Vec<(String, Range<u64>)>,
    is_closed: bool,
    held: Vec<Answer>,
    /// What the next reads of data answer.
    failures: usize,
}

impl HeldBucket {
    /// Reads of data get no answer until the bucket is opened.
    fn close(&self) {
        self.state.lock().unwrap().is_closed = true;
    }

    fn open(&self) {
        let (held, objects) = {
            let mut state = self.state.lock().unwrap();
            state.is_closed = false;
            (std::mem::take(&mut state.held), state.objects.clone())
        };
        held.into_iter().for_each(|answer| answer(&objects));
    }

    fn wait_for_held(&self, count: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.held.len() < count).unwrap());
    }

    fn gets(&self) -> usize {
        self.state.lock().unwrap().gets.len()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
}

fn part(objects: &Contents, name: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectError> {
    let object = objects.get(name).ok_or(ObjectError::Missing)?;
    let range = range.unwrap_or(0..u64::MAX);
    let end = range.end.min(object.len() as u64) as usize;
    Ok(object.slice((range.start as usize).min(end)..end))
}

impl Objects for HeldBucket {
    fn create(&self, name: &str, body: Bytes, done: Done<()>) {
        let result = {
            let mut state = self.state.lock().unwrap();
            match state.objects.contains_key(name) {
                true => Err(ObjectError::Exists),
                false => {
                    state.objects.insert(name.into(), body);
                    Ok(())
                }
            }
        };
        done(result);
    }

    fn put(&self, name: &str, body: Bytes, done: Done<()>) {
        self.change(|state| drop(state.objects.insert(name.into(), body)));
        done(Ok(()));
    }

    fn get(&self, name: &str, range: Option<Range<u64>>, done: Done<Bytes>) {
        let mut state = self.state.lock().unwrap();
        if let (true, Some(range)) = (name.starts_with("d/"), &range) {
            state.gets.push((name.into(), range.clone()));
            if state.failures > 0 {
                state.failures -= 1;
                drop(state);
                return done(Err(ObjectError::Unknown("it thunders".into())));
            }
            if state.is_closed {
                let name = name.to_owned();
                let range = Some(range.clone());
                state.held.push(Box::new(move |objects| done(part(objects, &name, range))));
                self.changed.notify_all();
                return;
            }
        }
        let result = part(&state.objects, name, range);
        drop(state);
        done(result);
    }

    fn list(&self, prefix: &str, max: u32, done: Done<Vec<String>>) {
        let state = self.state.lock().unwrap();
        let names = state.objects.range(prefix.to_owned()..).map(|(name, _)| name.clone());
        let found = names.take_while(|name| name.starts_with(prefix)).take(max as usize).collect();
        drop(state);
        done(Ok(found));
    }

    fn delete(&self, names: Vec<String>, done: Done<()>) {
        self.change(|state| names.iter().for_each(|name| drop(state.objects.remove(name))));
        done(Ok(()));
    }

    fn usage(&self) -> Usage {
        Usage { gets: self.gets() as u64, ..Usage::default() }
    }

    fn name(&self) -> &str {
        "s3://held"
    }
}

fn options() -> OpenOptions {
    OpenOptions { cache_bytes: 64 << 20, timeout: Duration::from_secs(60), ..OpenOptions::default() }
}

/// A store that is reopened, so that nothing is in memory, and its values: [`UNITS`] of a unit each.
fn stored() -> (Arc<HeldBucket>, Arc<Store>, Vec<Value>, Vec<Vec<u8>>) {
    let bucket = Arc::new(HeldBucket::default());
    let geometry =
        Geometry { ring_bytes: 12 << 20, ring_at_first: 12 << 20, segment_bytes: SEGMENT_BYTES, page_bytes: 4096 };
    let create = CreateOptions { geometry: Some(geometry), ..CreateOptions::default() };
    Store::create_in(bucket.clone(), &create).unwrap();
    let store = Store::open_in(bucket.clone(), &options()).unwrap();
    let mut random = Random::new(1);
    let contents: Vec<Vec<u8>> =
        (0..UNITS).map(|_| (0..UNIT_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect()).collect();
    for (number, content) in contents.iter().enumerate() {
        let mut txn = store.begin().unwrap();
        txn.put(&(number as u32).to_be_bytes(), content.clone());
        txn.commit().unwrap();
    }
    store.checkpoint().unwrap();
    store.close().unwrap();
    drop(store);
    let store = Arc::new(Store::open_in(bucket.clone(), &options()).unwrap());
    let values = store
        .patiently(|| {
            let mut values = Vec::new();
            store.view().scan(Bound::Unbounded, Bound::Unbounded, Direction::Forward, &mut |_, value| {
                values.push(value.clone());
                ControlFlow::Continue(())
            })?;
            Ok::<_, StoreError>(values)
        })
        .unwrap();
    assert!(values.len() == UNITS && values.iter().all(|value| matches!(value, Value::Extent(_))));
    bucket.change(|state| state.gets.clear());
    (bucket, store, values, contents)
}

fn read(store: &Store, value: &Value) -> Result<Bytes, StoreError> {
    store.patiently(|| store.view().read(std::slice::from_ref(value))).map(|mut read| read.remove(0))
}

#[test]
fn what_was_prefetched_is_read_without_a_request_and_comes_in_few() {
    let (bucket, store, values, contents) = stored();
    store.prefetch(&values);
    store.prefetch(&values);
    for (value, content) in values.iter().zip(&contents) {
        assert!(read(&store, value).unwrap() == content);
    }
    // Each segment's part of each flight.
    let segments = UNITS * UNIT_BYTES / SEGMENT_BYTES as usize;
    assert!(bucket.gets() <= 2 * segments, "{} GETs for {segments} segments", bucket.gets());
    store.prefetch(&values);
    let before = bucket.gets();
    assert!(read(&store, &values[7]).unwrap() == contents[7]);
    assert_eq!(bucket.gets(), before, "what is here is not fetched");
    store.close().unwrap();
}

#[test]
fn segments_are_prefetched_whole() {
    let (_, store, values, _) = stored();
    let segment_of = |at: usize| match &values[at] {
        Value::Extent(extent) => extent.unit.segment,
        Value::Bytes(_) => panic!("not a unit"),
    };
    let ends: Vec<usize> = (1..UNITS).filter(|at| segment_of(at - 1) != segment_of(*at)).collect();
    let last = *ends.last().unwrap();
    let first = ends[0];
    let begun = |values: &[Value], wanted, goes_on| store.view().prefetch(values, wanted, goes_on);
    // What is wanted of the last is left, if there is much else; else the rest of it comes, too.
    let (much, little) = (ends[ends.len() / 2], first);
    assert_eq!(begun(&values, much + 3, true), much);
    assert_eq!(begun(&values, little - 3, true), little);
    assert_eq!(begun(&values[..little - 1], little - 3, true), little - 3, "where it ends is not known");
    assert_eq!(begun(&values, UNITS, true), last, "more of the last may follow");
    assert_eq!(begun(&values, UNITS, false), UNITS);
    store.close().unwrap();
}

/// Each opening begins with new segments, and so with a new part of their table.
#[test]
fn however_often_a_store_was_opened_it_is_opened_with_few_requests() {
    let (bucket, store, ..) = stored();
    store.close().unwrap();
    drop(store);
    let mut before = None;
    for round in 0..40_u32 {
        bucket.change(|state| state.gets.clear());
        let store = Store::open_in(bucket.clone(), &options()).unwrap();
        let put = || {
            let mut txn = store.begin()?;
            txn.put(b"round", round.to_be_bytes().to_vec());
            txn.commit()
        };
        store.patiently(put).unwrap();
        store.checkpoint().unwrap();
        store.close().unwrap();
        let gets = bucket.gets();
        assert!(gets <= *before.get_or_insert(gets) + 3, "{gets} GETs in round {round}, {before:?} in the first");
    }
}

#[test]
fn a_check_of_all_data_takes_few_requests() {
    let (bucket, store, _, _) = stored();
    assert_eq!(store.check(true), Vec::<String>::new());
    let segments = UNITS * UNIT_BYTES / SEGMENT_BYTES as usize;
    assert!(bucket.gets() <= 2 * segments, "{} GETs for {segments} segments", bucket.gets());
    store.close().unwrap();
}

#[test]
fn many_who_ask_at_once_share_one_request() {
    let (bucket, store, values, contents) = stored();
    bucket.close();
    let (read_it, results) = mpsc::channel();
    for _ in 0..16 {
        let (store, value, read_it) = (store.clone(), values[3].clone(), read_it.clone());
        std::thread::spawn(move || read_it.send(read(&store, &value).unwrap()).unwrap());
    }
    bucket.wait_for_held(1);
    bucket.open();
    for _ in 0..16 {
        assert!(results.recv().unwrap() == contents[3]);
    }
    assert_eq!(bucket.gets(), 1);
}

#[test]
fn who_needs_what_is_being_prefetched_waits_for_that_and_takes_what_only_waits() {
    let (bucket, store, values, contents) = stored();
    bucket.close();
    store.prefetch(&values);
    // All threads have something to wait for.
    bucket.wait_for_held(8);
    let (read_it, results) = mpsc::channel();
    for number in [0, UNITS - 1] {
        let (store, value, read_it) = (store.clone(), values[number].clone(), read_it.clone());
        std::thread::spawn(move || read_it.send((number, read(&store, &value).unwrap())).unwrap());
    }
    for _ in 0..2 {
        bucket.open();
        let (number, bytes) = results.recv().unwrap();
        assert!(bytes == contents[number]);
    }
    for (value, content) in values.iter().zip(&contents) {
        assert!(read(&store, value).unwrap() == content);
    }
    let mut asked: Vec<_> = bucket.state.lock().unwrap().gets.clone();
    let count = asked.len();
    asked.sort_by_key(|(name, range)| (name.clone(), range.start));
    assert!(
        asked.windows(2).all(|two| two[0].0 != two[1].0 || two[0].1.end <= two[1].1.start),
        "read twice: {asked:?}"
    );
    println!("{count} GETs");
}

/// Else who reads a file through would wait for all that is fetched ahead before it could be told what comes next.
#[test]
fn pages_do_not_wait_behind_data() {
    let (bucket, store, values, _) = stored();
    store.close().unwrap();
    drop(store);
    let store = Store::open_in(bucket.clone(), &options()).unwrap();
    bucket.close();
    store.prefetch(&values);
    // All threads have something to wait for, two GETs each, and more waits for them.
    bucket.wait_for_held(16);
    // (Those of so small a tree came with what opening has read: no GET of theirs is held back.)
    while let Err(StoreError::Miss(miss)) = store.view().get(&7_u32.to_be_bytes()) {
        store.fetch_soon(miss);
        std::thread::yield_now();
    }
    bucket.open();
    store.close().unwrap();
}

#[test]
fn nothing_piles_up_while_the_bucket_does_not_answer_and_the_end_does_not_wait() {
    let (bucket, store, values, _) = stored();
    bucket.close();
    for _ in 0..1000 {
        store.prefetch(&values);
    }
    bucket.wait_for_held(8);
    let under_way: u64 = bucket.state.lock().unwrap().gets.iter().map(|(_, range)| range.end - range.start).sum();
    assert!(under_way <= 8 * ((2 << 20) + (256 << 10)), "{under_way} bytes under way");
    let since = Instant::now();
    store.close().unwrap();
    drop(store);
    assert!(since.elapsed() < options().timeout, "the end waited {:?}", since.elapsed());
    bucket.open();
}

#[test]
fn errors_are_told_to_who_asked_and_to_nobody_else() {
    let (bucket, store, values, contents) = stored();
    // Something in the middle of what is read in one go is damaged.
    let Value::Extent(damaged) = &values[40] else { unreachable!() };
    bucket.change(|state| {
        let number = (UNIT_BYTES / 2) as u32 + damaged.unit.offset;
        let (name, object) = state
            .objects
            .iter()
            .find(|(_, object)| contains(object, &contents[40]))
            .map(|(name, object)| (name.clone(), object.to_vec()))
            .unwrap();
        let mut object = object;
        object[number as usize] ^= 1;
        state.objects.insert(name, object.into());
    });
    store.prefetch(&values);
    assert!(matches!(read(&store, &values[40]), Err(StoreError::Damaged(_))));
    for number in (0..UNITS).filter(|number| *number != 40) {
        assert!(read(&store, &values[number]).unwrap() == contents[number], "unit {number}");
    }
    // Several at once, of which one is damaged.
    assert!(matches!(store.patiently(|| store.view().read(&values[38..42])), Err(StoreError::Damaged(_))));
}

fn contains(object: &[u8], content: &[u8]) -> bool {
    object.windows(16).any(|window| window == &content[..16])
}

#[test]
fn a_prefetch_that_failed_is_made_good_by_who_reads() {
    let (bucket, store, values, contents) = stored();
    bucket.change(|state| state.failures = 3);
    store.prefetch(&values[..64]);
    for (value, content) in values.iter().zip(&contents) {
        assert!(read(&store, value).unwrap() == content);
    }
}

#[test]
fn a_store_that_is_dropped_gives_back_its_disk_whatever_is_being_prefetched() {
    let disk = Arc::new(MemoryDisk::default());
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    for round in 0..20_u32 {
        let store = Store::open_on(disk.clone(), &options()).unwrap();
        let put = store.patiently(|| {
            let mut txn = store.begin()?;
            for number in 0..10_u32 {
                txn.put(&[round.to_be_bytes(), number.to_be_bytes()].concat(), vec![round as u8; UNIT_BYTES]);
            }
            txn.commit()
        });
        put.unwrap();
        store.checkpoint().unwrap();
        let mut values = Vec::new();
        let scanned = store.patiently(|| {
            values.clear();
            store.view().scan(Bound::Unbounded, Bound::Unbounded, Direction::Forward, &mut |_, value| {
                values.push(value.clone());
                ControlFlow::Continue(())
            })
        });
        scanned.unwrap();
        store.prefetch(&values);
        store.close().unwrap();
        drop(store);
        assert_eq!(Arc::strong_count(&disk), 1, "round {round}");
    }
}
