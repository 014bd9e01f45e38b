//! What a program that uses the keys may rely on.

use super::*;
use kivafs::backend::MemoryDisk;
use kivafs::store::Geometry;
use std::collections::BTreeMap;

fn keys_on(disk: &Arc<MemoryDisk>) -> Keys {
    Keys::on(Arc::new(Store::open_on(disk.clone(), &OpenOptions::default()).unwrap())).unwrap()
}

fn fresh() -> (Arc<MemoryDisk>, Keys) {
    let disk = Arc::new(MemoryDisk::default());
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    let keys = keys_on(&disk);
    (disk, keys)
}

fn all(keys: &Keys, from: &[u8], to: Option<&[u8]>) -> Vec<(Bytes, Bytes)> {
    keys.range(from, to).unwrap().map(|pair| pair.unwrap()).collect()
}

#[test]
fn conditions_see_what_the_changes_before_them_left() {
    let (_disk, keys) = fresh();
    let equals = |value: &'static str| If::Equals(value.into());
    let steps = [
        (Change::set("key", "a").only(If::Present), Outcome::Not),
        (Change::set("key", "b").only(If::Absent), Outcome::Done),
        (Change::set("key", "c").only(equals("a")), Outcome::Not),
        (Change::set("key", "d").only(equals("b")), Outcome::Done),
        (Change::delete("key").only(equals("b")), Outcome::Not),
        (Change::set("", "e").only(If::Absent), Outcome::Done),
        (Change::delete("none"), Outcome::Done),
    ];
    let (changes, expected): (Vec<Change>, Vec<Outcome>) = steps.into_iter().unzip();
    assert_eq!(keys.apply(&changes).unwrap(), expected);
    assert_eq!(keys.get(b"key").unwrap().unwrap(), "d");
    assert_eq!(all(&keys, b"", None), [("".into(), "e".into()), ("key".into(), "d".into())]);
}

#[test]
fn a_long_batch_is_made_in_order_and_a_range_shows_one_instant() {
    let (_disk, keys) = fresh();
    let count = 3000_u32;
    let key = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    let changes: Vec<Change> = (0..count).map(|number| Change::set(key(number), vec![7; 200])).collect();
    assert_eq!(keys.apply(&changes).unwrap(), vec![Outcome::Done; changes.len()]);
    let mut range = keys.range(&key(10).clone(), Some(&key(2990))).unwrap();
    let first = range.next().unwrap().unwrap();
    // Also what is yet to be read is as it was.
    let model: BTreeMap<Bytes, Bytes> = (10..2990).map(|number| (key(number), vec![7; 200].into())).collect();
    keys.apply(&(0..count).map(|number| Change::delete(key(number))).collect::<Vec<_>>()).unwrap();
    let rest = range.map(|pair| pair.unwrap());
    assert!([first].into_iter().chain(rest).eq(model));
    assert_eq!(all(&keys, b"", None), []);
    assert_eq!(all(&keys, b"b", Some(b"a")), []);
}

/// What was deleted comes free with the next checkpoint: whoever did not wait for it was refused.
#[test]
fn in_a_full_store_what_was_deleted_makes_room() {
    let disk = Arc::new(MemoryDisk::default());
    let geometry =
        Geometry { ring_bytes: 1 << 20, ring_at_first: 1 << 20, segment_bytes: 1 << 20, page_bytes: 1 << 10 };
    let options = CreateOptions { size: Some(20 << 20), geometry: Some(geometry), ..CreateOptions::default() };
    Store::create_on(disk.clone(), &options).unwrap();
    let keys = keys_on(&disk);
    let key = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    let set = |from: u32| {
        let changes: Vec<Change> = (from..from + 100).map(|number| Change::set(key(number), vec![7; 200])).collect();
        keys.apply(&changes)
    };
    let mut count = 0;
    let error = loop {
        match set(count) {
            Ok(_) => count += 100,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, KeysError::Store(FsError::NoSpace)), "{error}");
    assert!(count >= 4000, "{count} keys");
    for round in 0..8 {
        // A quarter of them, and a quarter of these again.
        let (first, some) = (round % 4 * count / 4, count / 4);
        let deletes: Vec<Change> = (first..first + some).map(|number| Change::delete(key(number))).collect();
        keys.apply(&deletes).unwrap();
        for from in (first..first + some / 4).step_by(100) {
            set(from).unwrap_or_else(|error| panic!("round {round}, {from} of {count}: {error}"));
        }
    }
    keys.close().unwrap();
}

#[test]
fn what_is_too_long_is_an_error_before_anything_is_done() {
    let (_disk, keys) = fresh();
    let long = vec![0; 256];
    let too_long = |error: KeysError| matches!(error, KeysError::TooLong { length: 256, most: 255, .. });
    assert!(too_long(keys.get(&long).unwrap_err()));
    assert!(too_long(keys.range(&long, None).err().unwrap()) && too_long(keys.range(b"", Some(&long)).err().unwrap()));
    for change in [Change::set(long.clone(), ""), Change::set("b", long.clone()), Change::delete(long.clone())] {
        assert!(too_long(keys.apply(&[Change::set("a", ""), change]).unwrap_err()));
    }
    assert_eq!(all(&keys, b"", None), []);
    assert_eq!(keys.apply(&[Change::set(vec![0; 255], vec![1; 255])]).unwrap(), [Outcome::Done]);
}

#[test]
fn what_was_synced_is_there_after_a_crash_and_what_was_closed_for_the_next() {
    let (disk, keys) = fresh();
    keys.apply(&[Change::set("a", "1")]).unwrap();
    keys.sync().unwrap();
    let crashed = keys_on(&Arc::new(MemoryDisk::from_bytes(disk.to_bytes())));
    assert_eq!(crashed.get(b"a").unwrap().unwrap(), "1");
    keys.apply(&[Change::set("b", "2")]).unwrap();
    keys.close().unwrap();
    assert_eq!(keys_on(&disk).get(b"b").unwrap().unwrap(), "2");
}

/// The batch whose atomicity is promised, at its longest: no state in between is ever seen.
#[test]
fn a_batch_takes_effect_at_one_instant() {
    let (_disk, keys) = fresh();
    let key = |number: usize| [number.to_be_bytes().to_vec(), vec![255; KEY_MAX - 8]].concat();
    let batch = |value: u8| -> Vec<Change> {
        (0..BATCH_MAX).map(|number| Change::set(key(number), vec![value; VALUE_MAX])).collect()
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..20).for_each(|value| drop(keys.apply(&batch(value)).unwrap())));
        while !writer.is_finished() {
            let pairs = all(&keys, b"", None);
            assert!(pairs.is_empty() || pairs.len() == BATCH_MAX, "{}", pairs.len());
            assert!(pairs.windows(2).all(|pair| pair[0].1 == pair[1].1), "of two batches");
        }
    });
}

#[test]
fn a_long_file_is_no_pair_and_its_space_is_given_back() {
    let (_disk, keys) = fresh();
    let caller = crate::fs::Caller { uid: 0, gid: 0, umask: 0 };
    keys.fs.put_path(caller, b"long", &mut &vec![7; 3 << 20][..]).unwrap();
    assert_eq!((keys.get(b"long").unwrap(), all(&keys, b"", None)), (None, Vec::new()));
    assert_eq!(keys.apply(&[Change::set("long", "").only(If::Absent)]).unwrap(), [Outcome::Not]);
    assert_eq!(keys.apply(&[Change::set("long", "short"), Change::delete("long")]).unwrap(), [Outcome::Done; 2]);
    assert!(!keys.fs.deferred_due(), "nothing is left to do");
    assert_eq!(crate::fs::check(keys.fs.store()).unwrap(), Vec::<String>::new());
}
