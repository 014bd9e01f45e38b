//! Tests: the tree against a `BTreeMap`, in any order of batches, snapshots, checkpoints, lost
//! caches and reopenings. On failure, proptest prints the steps and keeps the
//! seed; `PROPTEST_CASES` sets how many cases are tried.

use crate::log::{Codec, Pointer, SegmentNo};
use crate::tree::node::{Body, Edge};
use crate::tree::shelf::{Cache, Counters, Failing, Reading, Shelf};
use crate::tree::{
    Direction, Extent, Frozen, FrozenLeaves, Key, Ledger, Node, Postponed, Root, Tree, TreeError, VALUE_INLINE_MAX,
    Value, Written,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

type Map = BTreeMap<Vec<u8>, Value>;

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(Vec<u8>, Value)>),
    /// So many pairs with rising (or falling) numbers after a prefix, in batches of so many.
    PutRun {
        prefix: Vec<u8>,
        from: u16,
        count: u16,
        batch: u16,
        rising: bool,
        value: Value,
    },
    /// Keys that are there or not.
    Delete(Vec<Vec<u8>>),
    /// This part of the keys, by rank.
    DeleteRange(prop::sample::Index, prop::sample::Index),
    Snapshot,
    DropSnapshot(prop::sample::Index),
    Freeze,
    FreezeLeaves,
    Write,
    WriteFails {
        after_pages: usize,
    },
    Install,
    DropCheckpoint,
    DropCache,
    Evict(u8),
    /// With changes that are postponed: of any keys, and of some that are there, by rank.
    Reopen(Vec<(Vec<u8>, Option<Value>)>, Vec<(prop::sample::Index, Option<Value>)>),
    /// So many leaves from that key on.
    CatchUp(Vec<u8>, usize),
    Scan(Bound<Vec<u8>>, Bound<Vec<u8>>, bool),
    /// Keys that are there or not, all at once.
    Get(Vec<Vec<u8>>),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::collection::vec(0u8..6, 1..5),
        2 => any::<[u8; 3]>().prop_map(|end| [&[7; 9][..], &end].concat()),
        2 => (0u8..3, any::<[u8; 2]>()).prop_map(|(dir, end)| [&vec![b'p' + dir; 480][..], &end].concat()),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(fill, end)| [&vec![fill; 511][..], &[end]].concat()),
        1 => prop::collection::vec(any::<u8>(), 1..60),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Value::from),
        1 => (0usize..=VALUE_INLINE_MAX).prop_map(|length| Value::from(vec![1; length])),
        1 => (VALUE_INLINE_MAX + 1..20_000).prop_map(|length| Value::from(vec![2; length])),
        2 => (0u64..4, 0u32..60_000, 1u32..5_000).prop_map(|(segment, offset, length)| extent(segment, offset, length)),
    ]
}

fn extent(segment: u64, offset: u32, length: u32) -> Value {
    let unit = Pointer {
        segment: SegmentNo(1_000_000 + segment),
        offset: 0,
        length: 1,
        codec: Codec::Raw,
        shrunk: 0,
        checksum: 7,
    };
    Value::Extent(Extent { unit, offset, length })
}

/// Of a change that can be postponed.
fn short_value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| Some(Value::from(bytes))),
        1 => (0usize..=VALUE_INLINE_MAX).prop_map(|length| Some(Value::from(vec![1; length]))),
        3 => Just(None),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    let run = (key(), 0u16..500, 1u16..300, 1u16..200, any::<bool>(), value());
    prop_oneof![
        6 => prop::collection::vec((key(), value()), 1..60).prop_map(Step::Put),
        2 => prop::collection::vec((key(), value()), 1..3).prop_map(Step::Put),
        3 => run.prop_map(|(mut prefix, from, count, batch, rising, value)| {
            prefix.truncate(500);
            Step::PutRun { prefix, from, count, batch, rising, value }
        }),
        2 => prop::collection::vec(key(), 1..30).prop_map(Step::Delete),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Step::DeleteRange(a, b)),
        2 => Just(Step::Snapshot),
        1 => any::<Index>().prop_map(Step::DropSnapshot),
        3 => Just(Step::Freeze),
        2 => Just(Step::FreezeLeaves),
        4 => Just(Step::Write),
        1 => (0usize..20).prop_map(|after_pages| Step::WriteFails { after_pages }),
        3 => Just(Step::Install),
        1 => Just(Step::DropCheckpoint),
        1 => Just(Step::DropCache),
        2 => any::<u8>().prop_map(Step::Evict),
        3 => (prop::collection::vec((key(), short_value()), 0..40), prop::collection::vec((any::<Index>(), short_value()), 0..40))
            .prop_map(|(any, there)| Step::Reopen(any, there)),
        2 => (prop::collection::vec(any::<u8>(), 0..4), 1usize..20).prop_map(|(from, most)| Step::CatchUp(from, most)),
        3 => (bound(), bound(), any::<bool>()).prop_map(|(from, to, forward)| Step::Scan(from, to, forward)),
        1 => prop::collection::vec(key(), 0..40).prop_map(Step::Get),
    ]
}

/// A running checkpoint, and the state that it stores.
enum Checkpoint {
    None,
    Frozen(Frozen, Map, Counters),
    Written(Written, Map, Counters),
    /// Not one, but in its place.
    Leaves(FrozenLeaves),
    LeavesWritten(Written),
}

struct World {
    page_bytes: usize,
    tree: Tree,
    map: Map,
    ledger: Counters,
    shelf: Shelf,
    cache: Cache,
    snapshots: Vec<(Root, Map)>,
    checkpoint: Checkpoint,
    /// The last checkpoint: its root, state, and counters.
    stored: (Option<Pointer>, Map, Counters),
}

impl World {
    fn new(page_bytes: usize) -> World {
        World {
            page_bytes,
            tree: Tree::empty(page_bytes),
            map: Map::new(),
            ledger: Counters::default(),
            shelf: Shelf::default(),
            cache: Cache::default(),
            snapshots: Vec::new(),
            checkpoint: Checkpoint::None,
            stored: Default::default(),
        }
    }

    fn apply(&mut self, changes: BTreeMap<Vec<u8>, Option<Value>>) {
        let changes: Vec<_> = changes.into_iter().collect();
        let World { tree, ledger, cache, shelf, .. } = self;
        let height = height(&tree.root(), &Reading(cache, shelf));
        let ((), misses) = cache.patiently(shelf, || {
            let before = (ledger.clone(), tree.dirty_bytes());
            let done = tree.apply(cache, &changes, ledger);
            if done.is_err() {
                assert_eq!((&before.0, before.1), (&*ledger, tree.dirty_bytes()), "an error, but something changed");
            }
            done
        });
        assert!(misses <= height, "{misses} rounds for {height} levels");
        for (key, value) in changes {
            match value {
                Some(value) => self.map.insert(key, value),
                None => self.map.remove(&key),
            };
        }
    }

    /// As `apply`, of a tree that was just opened, and without reading a leaf.
    fn postpone(&mut self, changes: BTreeMap<Vec<u8>, Option<Value>>) {
        let World { tree, ledger, cache, shelf, .. } = self;
        let leaves = |cache: &Cache| cache.0.borrow().values().filter(|page| page.level() == 0).count();
        let all = Postponed::of(changes.iter().map(|(key, value)| (&key[..], value)));
        let (all, before) = (Arc::new(all), leaves(cache));
        let left = cache.patiently(shelf, || tree.postpone(cache, &all, ledger)).0;
        let taken = changes.len() - left.len();
        assert_eq!(tree.leaves_behind() > 0, taken > 0);
        assert!(leaves(cache) == before || taken == 0);
        let rest = left.into_iter().map(|index| all.get(index));
        let rest = rest.map(|(key, bytes)| (key.to_vec(), bytes.map(|bytes| Value::from(bytes.to_vec())))).collect();
        for (key, value) in changes {
            match value {
                Some(value) => self.map.insert(key, value),
                None => self.map.remove(&key),
            };
        }
        self.apply(rest);
    }

    fn catch_up(&mut self, from: &[u8], most: usize) -> Option<Key> {
        let World { tree, ledger, cache, shelf, .. } = self;
        let were = tree.leaves_behind();
        let next = cache.patiently(shelf, || {
            let before = (ledger.clone(), tree.dirty_bytes());
            let done = tree.catch_up(cache, ledger, from, most);
            if done.is_err() {
                assert_eq!((&before.0, before.1), (&*ledger, tree.dirty_bytes()), "an error, but something changed");
            }
            done
        });
        assert!(next.0.is_none() || were - tree.leaves_behind() == most);
        next.0
    }

    /// Replaces what has to be before a freeze.
    fn place(&mut self) {
        let large = self.map.iter().filter(|(_, value)| value.must_be_placed());
        let placed = large.map(|(key, value)| (key.clone(), Some(extent(9, 0, value.len() as u32)))).collect();
        self.apply(placed);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(pairs) => self.apply(pairs.into_iter().map(|(key, value)| (key, Some(value))).collect()),
            Step::PutRun { prefix, from, count, batch, rising, value } => {
                let mut numbers: Vec<u16> = (from..from + count).collect();
                if !rising {
                    numbers.reverse();
                }
                for batch in numbers.chunks(batch.into()) {
                    let key = |number: &u16| [&prefix[..], &number.to_be_bytes()].concat();
                    self.apply(batch.iter().map(|number| (key(number), Some(value.clone()))).collect());
                }
            }
            Step::Delete(keys) => self.apply(keys.into_iter().map(|key| (key, None)).collect()),
            Step::DeleteRange(a, b) => {
                let (a, b) = (a.index(self.map.len() + 1), b.index(self.map.len() + 1));
                let keys = self.map.keys().skip(a.min(b)).take(a.abs_diff(b)).cloned();
                let changes = keys.map(|key| (key, None)).collect();
                self.apply(changes);
            }
            Step::Snapshot => self.snapshots.push((self.tree.root(), self.map.clone())),
            Step::DropSnapshot(index) if !self.snapshots.is_empty() => {
                self.snapshots.swap_remove(index.index(self.snapshots.len()));
            }
            Step::Freeze if matches!(self.checkpoint, Checkpoint::None) => {
                self.place();
                let mut from = Some(Key::default());
                while let Some(key) = from {
                    from = self.catch_up(&key, 7);
                }
                assert_eq!(self.tree.leaves_behind(), 0);
                self.checkpoint = Checkpoint::Frozen(self.tree.freeze(), self.map.clone(), self.ledger.clone());
            }
            Step::FreezeLeaves if matches!(self.checkpoint, Checkpoint::None) => {
                self.checkpoint = Checkpoint::Leaves(self.tree.freeze_leaves());
            }
            Step::Write => match self.take_checkpoint() {
                Checkpoint::Frozen(frozen, map, mut counters) => {
                    let Ok(written) = frozen.write(&mut self.shelf);
                    for at in written.pages() {
                        Ledger::add(&mut counters, at.segment, at.length.into());
                    }
                    // Before it is installed, and others change the tree.
                    self.cache.0.get_mut().extend(written.leaves());
                    self.checkpoint = Checkpoint::Written(written, map, counters);
                }
                Checkpoint::Leaves(leaves) => {
                    let Ok(written) = leaves.write(&mut self.shelf);
                    assert_eq!(written.root(), None);
                    self.cache.0.get_mut().extend(written.leaves());
                    self.checkpoint = Checkpoint::LeavesWritten(written);
                }
                other => self.checkpoint = other,
            },
            Step::WriteFails { after_pages } => {
                let mut failing = Failing { shelf: &mut self.shelf, pages_left: after_pages };
                match std::mem::replace(&mut self.checkpoint, Checkpoint::None) {
                    Checkpoint::Frozen(frozen, map, mut counters) => {
                        if let Ok(written) = frozen.write(&mut failing) {
                            written.pages().for_each(|at| Ledger::add(&mut counters, at.segment, at.length.into()));
                            self.checkpoint = Checkpoint::Written(written, map, counters);
                        }
                    }
                    Checkpoint::Leaves(leaves) => {
                        if let Ok(written) = leaves.write(&mut failing) {
                            self.checkpoint = Checkpoint::LeavesWritten(written);
                        }
                    }
                    other => self.checkpoint = other,
                }
            }
            Step::Install => match self.take_checkpoint() {
                Checkpoint::Written(written, map, counters) => {
                    let root = written.root();
                    let cache = self.cache.0.get_mut();
                    self.tree.install(written, &mut self.ledger, &mut |at, node| {
                        assert!(node.place() == Some(at) && node.level() > 0);
                        assert!(edges(&node.body).iter().all(|edge| matches!(edge, Edge::Stored(_))));
                        assert!(cache.insert(at, node).is_none(), "handed to the cache twice");
                    });
                    let stored = Root::stored(root);
                    self.verify(&stored, &map);
                    assert_eq!(Counters::of(&stored, &Reading(&self.cache, &self.shelf)), counters);
                    self.stored = (root, map, counters);
                }
                Checkpoint::LeavesWritten(written) => {
                    self.tree.install(written, &mut self.ledger, &mut |at, _| panic!("an inner page at {at}"));
                }
                other => self.checkpoint = other,
            },
            Step::DropCheckpoint => self.checkpoint = Checkpoint::None,
            Step::DropCache => self.cache.0.get_mut().clear(),
            Step::Evict(which) => self.cache.0.get_mut().retain(|at, _| (at.offset ^ u32::from(which)) % 3 != 0),
            Step::Reopen(any, there) => {
                let (root, map, counters) = self.stored.clone();
                self.checkpoint = Checkpoint::None;
                self.tree = Tree::stored(root, self.page_bytes);
                (self.map, self.ledger) = (map, counters);
                let keys: Vec<_> = self.map.keys().cloned().collect();
                let there = there.into_iter().filter(|_| !keys.is_empty());
                let there = there.map(|(index, value)| (keys[index.index(keys.len())].clone(), value));
                self.postpone(any.into_iter().chain(there).collect());
            }
            Step::CatchUp(from, most) => {
                self.catch_up(&from, most);
            }
            Step::Scan(from, to, forward) => {
                let (from, to) = (from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]));
                self.verify_scan(from, to, if forward { Direction::Forward } else { Direction::Backward });
            }
            Step::Get(keys) => {
                let root = self.tree.root();
                let height = height(&root, &Reading(&self.cache, &self.shelf));
                let (values, misses) = self.cache.patiently(&self.shelf, || root.get_all(&self.cache, &keys));
                assert!(keys.iter().map(|key| self.map.get(key)).eq(values.iter().map(Option::as_ref)));
                assert!(misses <= height, "{misses} rounds for {height} levels");
            }
            Step::DropSnapshot(_) | Step::Freeze | Step::FreezeLeaves => {}
        }
        self.check();
    }

    fn take_checkpoint(&mut self) -> Checkpoint {
        std::mem::replace(&mut self.checkpoint, Checkpoint::None)
    }

    fn check(&self) {
        let reading = Reading(&self.cache, &self.shelf);
        let root = self.tree.root();
        assert_eq!(root.check(&reading, self.page_bytes), [""; 0]);
        assert_eq!(self.ledger, Counters::of(&root, &reading), "T7");
        let (mut dirty, mut behind) = (0, 0);
        if let Some(edge) = &root.edge {
            sum_dirty(edge, &mut dirty, &mut behind);
        }
        assert_eq!((dirty, behind), (self.tree.dirty_bytes(), self.tree.leaves_behind()));
        self.verify(&root, &self.map);
        for (root, map) in &self.snapshots {
            self.verify(root, map);
            assert_eq!(root.check(&reading, self.page_bytes), [""; 0]);
        }
    }

    /// Every pair, by scan and some by get: in their order, so that some are in the leaf of the one before.
    fn verify(&self, root: &Root, map: &Map) {
        let reading = Reading(&self.cache, &self.shelf);
        let mut expected = map.iter();
        root.scan(&reading, Bound::Unbounded, Bound::Unbounded, Direction::Forward, &mut |key, value| {
            assert_eq!(expected.next().map(|(key, value)| (&key[..], value)), Some((key, value)));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(expected.next(), None);
        let some: Vec<_> =
            map.iter().step_by(7).flat_map(|(key, _)| [key.to_vec(), [key, &b"\0"[..]].concat()]).collect();
        let of = |keys: &[Vec<u8>]| keys.iter().map(|key| map.get(&key[..]).cloned()).collect::<Vec<_>>();
        let mixed: Vec<_> = some.iter().rev().cloned().collect();
        for keys in [some, mixed] {
            assert_eq!(root.get_all(&reading, &keys).unwrap(), of(&keys));
        }
        let mut last = None;
        for (key, value) in map.iter().step_by(7) {
            assert_eq!(root.get(&reading, key).unwrap().as_ref(), Some(value));
            assert_eq!(root.get_near(&reading, &mut last, key).unwrap().as_ref(), Some(value));
            let other = [key, &b"\0"[..]].concat();
            assert_eq!(root.get(&reading, &other).unwrap().as_ref(), map.get(&other));
            assert_eq!(root.get_near(&reading, &mut last, &other).unwrap().as_ref(), map.get(&other));
        }
    }

    /// A scan that goes on after misses, and one that stops early.
    fn verify_scan(&mut self, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) {
        let empty = match (from, to) {
            (Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a > b,
            _ => false,
        };
        let mut expected: Vec<_> = match empty {
            true => Vec::new(),
            false => self.map.range::<[u8], _>((from, to)).map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        if direction == Direction::Backward {
            expected.reverse();
        }
        for stop_after in [usize::MAX, 1, expected.len() / 2 + 1] {
            let root = self.tree.root();
            let mut found: Vec<(Vec<u8>, Value)> = Vec::new();
            self.cache.patiently(&self.shelf, || {
                let last = found.last().map(|(key, _)| key.clone());
                let (from, to) = match (&last, direction) {
                    (Some(last), Direction::Forward) => (Bound::Excluded(&last[..]), to),
                    (Some(last), Direction::Backward) => (from, Bound::Excluded(&last[..])),
                    (None, _) => (from, to),
                };
                root.scan(&self.cache, from, to, direction, &mut |key, value| {
                    found.push((key.to_vec(), value.clone()));
                    if found.len() >= stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
            });
            assert_eq!(found, expected[..stop_after.min(expected.len())]);
        }
    }
}

fn edges(body: &Body) -> &[Edge] {
    match body {
        Body::Leaf(_) => &[],
        Body::Inner(inner) => &inner.edges,
    }
}

fn sum_dirty(edge: &Edge, dirty: &mut u64, behind: &mut usize) {
    match edge {
        Edge::Stored(_) => {}
        Edge::Loaded(node) => {
            assert_eq!(node.place(), None, "T8");
            assert!(!node.has_left(), "a page of the current tree is marked as left");
            *dirty += node.bytes() as u64;
            edges(&node.body).iter().for_each(|edge| sum_dirty(edge, dirty, behind));
        }
        Edge::Behind(page) => {
            *dirty += page.dirty;
            *behind += 1;
        }
    }
}

fn height(root: &Root, pages: &Reading<'_>) -> usize {
    root.edge.as_ref().map_or(0, |edge| usize::from(edge.reach(pages, None).unwrap().level()) + 1)
}

proptest! {
    #[test]
    fn behaves_like_a_map(page_bytes in prop_oneof![Just(1024), Just(4096)], steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(page_bytes);
        for step in steps {
            world.step(step);
        }
    }
}

fn put(keys: impl IntoIterator<Item = u32>) -> BTreeMap<Vec<u8>, Option<Value>> {
    keys.into_iter().map(|key| (key.to_be_bytes().to_vec(), Some(Value::from(vec![3; 50])))).collect()
}

fn delete(keys: impl IntoIterator<Item = u32>) -> BTreeMap<Vec<u8>, Option<Value>> {
    keys.into_iter().map(|key| (key.to_be_bytes().to_vec(), None)).collect()
}

impl World {
    fn checkpoint(&mut self) {
        for step in [Step::Freeze, Step::Write, Step::Install] {
            self.step(step);
        }
    }
}

/// All but those that are behind, that were changed meanwhile, or that hold what must be placed.
#[test]
fn leaves_are_stored_before_the_rest() {
    let mut world = World::new(1024);
    world.apply(put(0..2000));
    world.checkpoint();
    world.step(Step::DropCache);
    let changes = put((0..2000).step_by(100)).into_iter().collect();
    world.step(Step::Reopen(changes, Vec::new()));
    let inner = world.tree.changed_bytes();
    assert_eq!(world.tree.leaves_behind(), 20);
    world.step(Step::CatchUp(Vec::new(), 12));
    let caught_up = world.tree.changed_bytes();
    assert!(caught_up > inner + 12 * 400, "{caught_up}, {inner} of them above leaves");
    world.apply(BTreeMap::from([(1_u32.to_be_bytes().to_vec(), Some(Value::from(vec![5; 2000])))]));
    world.step(Step::FreezeLeaves);
    world.step(Step::Write);
    world.apply(put([300]));
    world.step(Step::Install);
    assert_eq!(world.tree.leaves_behind(), 8);
    let left = world.tree.changed_bytes();
    assert!((inner + 800..inner + 2 * 1024).contains(&left), "{left} bytes of {caught_up}, {inner} above leaves");
    world.checkpoint();
    assert_eq!((world.tree.dirty_bytes(), world.tree.leaves_behind()), (0, 0));
}

#[test]
fn the_whole_tree_goes_away_while_it_is_written() {
    let mut world = World::new(1024);
    world.apply(put(0..1000));
    world.step(Step::Freeze);
    world.apply(delete(0..1000));
    world.step(Step::Write);
    world.step(Step::Install);
    assert_eq!((world.tree.dirty_bytes(), world.ledger.0.len()), (0, 0));
    assert!(world.tree.root().is_empty() && world.cache.0.borrow().is_empty());
    world.checkpoint();
    assert_eq!(world.stored.0, None);
}

#[test]
fn the_root_collapses_while_it_is_written() {
    let mut world = World::new(1024);
    world.apply(put(0..1000));
    world.step(Step::Freeze);
    world.apply(delete(5..1000));
    world.check();
    world.step(Step::Write);
    world.apply(put(500..501));
    world.step(Step::Install);
    world.checkpoint();
    assert_eq!(world.tree.dirty_bytes(), 0);
}

#[test]
fn the_root_collapses_to_a_page_not_in_memory() {
    let mut world = World::new(1024);
    world.apply(put(0..10_000));
    world.checkpoint();
    let root = world.tree.root();
    let Body::Inner(top) = &root.edge.as_ref().unwrap().reach(&world.cache, None).unwrap().body else {
        panic!("too few pairs for this test")
    };
    let second = u32::from_be_bytes({
        let mut key = [0; 4];
        let separator = top.keys.key(1);
        key[..separator.len()].copy_from_slice(separator);
        key
    });
    let second = (0..10_000).find(|key| *key >= second).unwrap();
    world.step(Step::DropCache);
    world.apply(delete(second..10_000));
    world.step(Step::DropCache);
    world.checkpoint();
    world.step(Step::DropCache);
    world.apply(delete(0..1));
    world.check();
    world.apply(delete(0..10_000));
    world.check();
    assert!(world.tree.root().is_empty());
}

#[test]
fn an_unchanged_tree_writes_nothing() {
    let mut world = World::new(4096);
    world.apply(put(0..1000));
    world.checkpoint();
    let stored = world.stored.0;
    world.apply(delete(5000..6000));
    assert_eq!(world.tree.dirty_bytes(), 0, "deleting nothing dirties nothing");
    let frozen = world.tree.freeze();
    let Ok(written) = frozen.write(&mut world.shelf);
    assert_eq!((written.pages().count(), written.root()), (0, stored));
    world.tree.install(written, &mut world.ledger, &mut |_, _| panic!("nothing was written"));
    world.check();
}

#[test]
fn putting_a_pair_as_it_is_moves_its_pages() {
    let mut world = World::new(1024);
    world.apply(put(0..1000));
    world.checkpoint();
    let before = world.ledger.clone();
    world.apply(put(500..501));
    let height = height(&world.tree.root(), &Reading(&world.cache, &world.shelf));
    world.step(Step::Freeze);
    world.step(Step::Write);
    let Checkpoint::Written(written, ..) = &world.checkpoint else { unreachable!() };
    assert_eq!(written.pages().count(), height);
    world.step(Step::Install);
    assert_ne!(world.ledger, before);
}

#[test]
fn many_files_that_are_written_in_order_leave_full_pages() {
    for (name, rising) in [("rising", true), ("falling", false)] {
        let mut world = World::new(4096);
        for i in 0..1000u32 {
            // Not the last stream alone: most grow in the middle of the tree.
            for stream in 0..40u32 {
                let number = if rising { i } else { u32::MAX - i };
                let key = [stream.to_be_bytes(), number.to_be_bytes()].concat();
                world.apply(BTreeMap::from([(key, Some(Value::from(vec![1; 30])))]));
            }
        }
        world.checkpoint();
        let fill = world.shelf.leaf_bytes as f64 / (world.shelf.leaves * 4096) as f64;
        assert!(fill > 0.8, "{name}: {fill}");
        println!("{name}: {fill:.2} full");
    }
}

#[test]
fn pages_that_shrink_are_merged() {
    let mut world = World::new(4096);
    world.apply(put(0..20_000));
    world.apply(delete((0..20_000).filter(|key| key % 10 != 0)));
    world.checkpoint();
    let fill = world.shelf.leaf_bytes as f64 / (world.shelf.leaves * 4096) as f64;
    assert!(fill > 0.33, "{fill}");
}

#[test]
fn snapshots_are_for_any_thread() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Root>();
    assert_send_sync::<Node>();
    assert_send_sync::<Frozen>();
    assert_send_sync::<Written>();
    assert_send_sync::<Tree>();
}

#[test]
#[should_panic(expected = "one checkpoint at a time")]
fn a_second_checkpoint_is_refused() {
    let mut tree = Tree::empty(4096);
    let _frozen = tree.freeze();
    tree.freeze();
}

#[test]
#[should_panic(expected = "T6")]
fn a_value_that_must_be_placed_is_not_written() {
    let mut tree = Tree::empty(4096);
    let value = Value::from(vec![0; VALUE_INLINE_MAX + 1]);
    tree.apply(&Cache::default(), &[(b"k", Some(value))], &mut Counters::default()).unwrap();
    let _ = tree.freeze().write(&mut Shelf::default());
}

#[test]
#[should_panic(expected = "rise strictly")]
fn a_batch_out_of_order_is_refused() {
    let value = Some(Value::from(vec![0]));
    let changes = [(b"k", value.clone()), (b"k", value)];
    let _ = Tree::empty(4096).apply(&Cache::default(), &changes, &mut Counters::default());
}

#[test]
fn a_page_of_the_wrong_level_is_damage() {
    let mut world = World::new(1024);
    world.apply(put(0..10_000));
    world.checkpoint();
    let root = world.stored.0.unwrap();
    // A crafted store: the root's first child leads back to the root, under the child's name.
    let node = world.shelf.decode(&root);
    let Edge::Stored(child) = edges(&node.body)[0] else { unreachable!() };
    let Body::Inner(inner) = &node.body else { unreachable!() };
    let crafted = Node::placed(Body::Inner(inner.with_edges(inner.edges.clone())), child);
    world.cache.0.get_mut().insert(child, crafted.into());
    let reading = Reading(&world.cache, &world.shelf);
    let snapshot = world.tree.root();
    assert!(matches!(snapshot.get(&reading, &[0; 4]), Err(TreeError::Damaged { at, .. }) if at == child));
    assert!(snapshot.check(&reading, 1024).iter().any(|line| line.starts_with("root.0: T2")));
    let changes = [([0; 4], None)];
    let before = world.ledger.clone();
    let refused = world.tree.apply(&reading, &changes, &mut world.ledger);
    assert!(matches!(refused, Err(TreeError::Damaged { .. })));
    assert_eq!((before, world.tree.dirty_bytes()), (world.ledger, 0));
}

#[test]
fn a_checkpoint_is_written_while_batches_go_on() {
    let mut world = World::new(1024);
    for round in 0..30u32 {
        world.apply(put((0..500).map(|i| i * 7919 % 5000 + round)));
        world.place();
        let (frozen, map) = (world.tree.freeze(), world.map.clone());
        let mut shelf = std::mem::take(&mut world.shelf);
        // Pages that the writer needs meanwhile come from this copy.
        let behind = shelf.clone();
        let (written, shelf) = std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let Ok(written) = frozen.write(&mut shelf);
                (written, shelf)
            });
            world.shelf = behind;
            while !writing.is_finished() {
                let from = world.map.len() as u32 * 31 % 5000;
                world.apply(put(from..from + 20));
                world.apply(delete(from + 10..from + 90));
            }
            writing.join().unwrap()
        });
        world.shelf = shelf;
        world.verify(&Root::stored(written.root()), &map);
        let cache = world.cache.0.get_mut();
        world.tree.install(written, &mut world.ledger, &mut |at, node| {
            cache.insert(at, node);
        });
        if round % 3 == 0 {
            world.cache.0.get_mut().clear();
        }
        world.check();
    }
}
