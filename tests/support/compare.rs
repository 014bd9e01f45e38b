//! A store against a map, whatever the store lies on.

use super::medium::{Medium, assert_whole};
use super::random::Random;
use super::store::{
    Sizes, State, apply, bytes_of, commit, difference, random_changes, random_key, read_state, read_view, scan,
};
use kivafs::store::{Direction, OpenOptions, Store, View};
use std::collections::VecDeque;
use std::ops::Bound;

/// Old views that are kept, and looked at again later.
const VIEWS_MAX: usize = 4;

/// Random transactions, reads, scans, old views, syncs, cleanings, closes and reopenings, each held to a map.
pub fn compare_with_map<M: Medium>(medium: &M, seed: u64, sizes: Sizes, steps: usize, options: &OpenOptions) {
    let mut random = Random::new(seed);
    medium.create(sizes).unwrap();
    let mut store = medium.open(options).unwrap();
    let mut state = State::new();
    let mut views: VecDeque<(View, State)> = VecDeque::new();
    for step in 0..steps {
        match random.within(0..34) {
            0..18 => {
                let changes = random_changes(&mut random, sizes);
                commit(&store, &changes).unwrap_or_else(|error| panic!("step {step}: {error}"));
                apply(&mut state, &changes);
            }
            18..22 => compare_gets(&mut random, &store, &state, sizes),
            22..26 => compare_scan(&mut random, &store, &state, sizes),
            26 => {
                views.push_back((store.view(), state.clone()));
                if views.len() > VIEWS_MAX {
                    views.pop_front();
                }
            }
            27 => {
                if let Some((view, then)) = views.pop_front() {
                    let found = read_view(&store, &view).unwrap();
                    assert!(found == then, "step {step}: an old view: {}", difference(&found, &then));
                }
            }
            28 => store.begin().unwrap().put(b"abandoned", vec![1]),
            29 | 30 => store.sync().unwrap(),
            31 | 32 => drop(store.clean().unwrap()),
            _ => {
                for (view, then) in views.drain(..) {
                    let found = read_view(&store, &view).unwrap();
                    assert!(found == then, "step {step}: an old view at the end: {}", difference(&found, &then));
                }
                store.close().unwrap();
                drop(store);
                assert_whole(medium, &format!("step {step}"));
                store = medium.open(options).unwrap();
                let found = read_state(&store).unwrap();
                assert!(found == state, "step {step}: reopened: {}", difference(&found, &state));
            }
        }
    }
    let found = read_state(&store).unwrap();
    assert!(found == state, "at the end: {}", difference(&found, &state));
}

fn compare_gets(random: &mut Random, store: &Store, state: &State, sizes: Sizes) {
    let view = store.view();
    for _ in 0..5 {
        let key = random_key(random, sizes);
        let value = store.patiently(|| view.get(&key)).unwrap();
        assert_eq!(value.as_ref().map(|value| value.len()), state.get(&key).map(Vec::len), "length of {key:?}");
        let bytes = value.map(|value| bytes_of(store, &view, value).unwrap());
        assert!(bytes.as_ref() == state.get(&key), "bytes of {key:?}");
    }
}

fn compare_scan(random: &mut Random, store: &Store, state: &State, sizes: Sizes) {
    let mut bound = || match random.within(0..5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(random_key(random, sizes)),
        _ => Bound::Excluded(random_key(random, sizes)),
    };
    let (from, to) = (bound(), bound());
    let count_max = if random.one_in(2) { usize::MAX } else { 1 + random.within(0..20) };
    let after = |key: &Vec<u8>| match &from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    };
    let before = |key: &Vec<u8>| match &to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
    };
    let mut expected: Vec<(&Vec<u8>, usize)> =
        state.iter().filter(|(key, _)| after(key) && before(key)).map(|(key, value)| (key, value.len())).collect();
    let view = store.view();
    for direction in [Direction::Forward, Direction::Backward] {
        let pairs = scan(store, &view, (from.clone(), to.clone()), direction, count_max).unwrap();
        let found: Vec<(&Vec<u8>, usize)> = pairs.iter().map(|(key, value)| (key, value.len())).collect();
        assert_eq!(found, expected[..expected.len().min(count_max)], "{direction:?} {from:?} {to:?}");
        expected.reverse();
    }
}
