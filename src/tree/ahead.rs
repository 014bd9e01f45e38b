//! What a miss names beside the page that is missing: those that will likely be asked for next.
//!
//! A scan that waits for one page after the other waits a round trip a page; so do gets and short
//! scans in the order of their keys (`ls -l`, `find`). Nothing is remembered to see them coming: who
//! reads page after page leaves them behind in the cache, and so the siblings just before the missing
//! page tell how long the run is by now. Twice as many are named to follow, up to a bound. Who asks
//! for keys at random rarely finds such a run, nor what follows it missing. A scan that is no run has the
//! few named that storage gives along with the first ([`Pages::together`]), as far as it wants them.
//!
//! Only misses pay for this.

use crate::log::Pointer;
use crate::tree::inner::Inner;
use crate::tree::node::{Body, Edge, Reached};
use crate::tree::{Direction, Pages, TreeError};
use std::ops::Range;

/// So many pages before the missing one are looked at; at most twice as many are named after it.
const PASSED_MAX: usize = 128;
/// Fewer are no run yet.
const RUN_MIN: usize = 4;
/// Most bytes of stored pages that are named ahead: a small part of any cache.
const AHEAD_BYTES_MAX: u64 = 1 << 20;

/// One level of the way from the root down to a page.
pub(super) struct Step<'a> {
    pub inner: &'a Inner,
    /// Which of its children is next.
    pub child: usize,
    pub above: Option<&'a Step<'a>>,
}

/// How pages are being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// One key.
    Get,
    /// Each page within bounds, or as many as the visitor wants.
    Scan(Direction),
}

impl Manner {
    fn direction(self) -> Direction {
        match self {
            Manner::Get => Direction::Forward,
            Manner::Scan(direction) => direction,
        }
    }
}

impl<'a> Step<'a> {
    /// The child.
    pub fn reach(&self, pages: &dyn Pages) -> Result<Reached<'a>, TreeError> {
        self.inner.edges[self.child].reach(pages, Some(self.inner.level - 1))
    }

    /// The child could not be reached: if it is not in memory, names what is to be read with it.
    /// `within`: which children of an inner page the scan wants.
    #[cold]
    pub fn name_ahead(
        &self,
        pages: &dyn Pages,
        error: TreeError,
        manner: Manner,
        within: impl Fn(&Inner) -> Range<usize>,
    ) -> TreeError {
        let TreeError::Miss(missing) = error else { return error };
        let direction = manner.direction();
        match (self.passed(pages, direction), manner) {
            // A run goes on where this scan ends: in the next directory, say.
            (passed @ RUN_MIN.., _) => self.add_next(Names::new(pages, missing, 2 * passed), direction, all),
            (_, Manner::Scan(_)) => self.add_next(Names::new(pages, missing, pages.together()), direction, within),
            (_, Manner::Get) => TreeError::Miss(missing),
        }
    }

    /// Names what follows the child, also in the inner pages after this one.
    fn add_next(
        &self,
        mut names: Names<'_>,
        direction: Direction,
        within: impl Fn(&Inner) -> Range<usize>,
    ) -> TreeError {
        names.add_all(self.inner, after(&within(self.inner), self.child, direction));
        let Some(above) = self.above else { return TreeError::Miss(names.missing) };
        for child in after(&within(above.inner), above.child, direction) {
            if !names.has_room() {
                break;
            }
            match (Step { child, ..*above }).reach(names.pages) {
                Ok(page) => {
                    if let Body::Inner(inner) = &page.body {
                        names.add_all(inner, in_order(within(inner), direction));
                    }
                }
                Err(_) => {
                    names.add(&above.inner.edges[child]);
                    // Its children are named next time.
                    names.left = names.left.saturating_sub(self.inner.edges.len());
                }
            }
        }
        TreeError::Miss(names.missing)
    }

    /// How many pages just before the child are in memory, also of the inner pages before this one.
    fn passed(&self, pages: &dyn Pages, direction: Direction) -> usize {
        let back = match direction {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        };
        let count = |inner: &Inner, order: &mut dyn ExactSizeIterator<Item = usize>| {
            let whole = order.len();
            let count = order.take_while(|child| missing(pages, &inner.edges[*child]).is_none()).count();
            (count, count == whole)
        };
        let (mut passed, mut goes_on) = count(self.inner, &mut after(&all(self.inner), self.child, back));
        let Some(above) = self.above else { return passed.min(PASSED_MAX) };
        for child in after(&all(above.inner), above.child, back) {
            if !goes_on || passed >= PASSED_MAX {
                break;
            }
            let Ok(page) = (Step { child, ..*above }).reach(pages) else { break };
            let Body::Inner(inner) = &page.body else { break };
            let more = count(inner, &mut in_order(all(inner), back));
            (passed, goes_on) = (passed + more.0, more.1);
        }
        passed.min(PASSED_MAX)
    }
}

/// The pages that a miss names.
struct Names<'p> {
    pages: &'p dyn Pages,
    missing: Vec<Pointer>,
    /// So many may still be looked at.
    left: usize,
    /// Of those that were named ahead.
    bytes: u64,
}

impl<'p> Names<'p> {
    fn new(pages: &'p dyn Pages, missing: Vec<Pointer>, left: usize) -> Names<'p> {
        Names { pages, missing, left, bytes: 0 }
    }

    fn has_room(&self) -> bool {
        self.left > 0 && self.bytes < AHEAD_BYTES_MAX
    }

    fn add_all(&mut self, inner: &Inner, children: impl Iterator<Item = usize>) {
        for child in children {
            if !self.has_room() {
                return;
            }
            self.add(&inner.edges[child]);
        }
    }

    fn add(&mut self, edge: &Edge) {
        self.left -= 1;
        if let Some(at) = missing(self.pages, edge) {
            self.missing.push(at);
            self.bytes += u64::from(at.length);
        }
    }
}

fn all(inner: &Inner) -> Range<usize> {
    0..inner.edges.len()
}

/// What has to be read before the page that the edge leads to can be.
fn missing(pages: &dyn Pages, edge: &Edge) -> Option<Pointer> {
    let at = match edge {
        Edge::Loaded(_) => return None,
        Edge::Stored(at) => *at,
        Edge::Behind(behind) => behind.needs()?,
    };
    pages.page(&at).is_err().then_some(at)
}

/// The children of that range, in that order.
fn in_order(range: Range<usize>, direction: Direction) -> impl ExactSizeIterator<Item = usize> {
    (0..range.len()).map(move |i| match direction {
        Direction::Forward => range.start + i,
        Direction::Backward => range.end - 1 - i,
    })
}

/// Those of the range that come after that child, in that order.
fn after(range: &Range<usize>, child: usize, direction: Direction) -> impl ExactSizeIterator<Item = usize> + use<> {
    let rest = match direction {
        Direction::Forward => child + 1..range.end,
        Direction::Backward => range.start..child.min(range.end),
    };
    in_order(rest, direction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::shelf::{Cache, Counters, Shelf};
    use crate::tree::{Root, Tree, Value};
    use std::ops::{Bound, ControlFlow};

    const PAIRS: u32 = 100_000;

    /// A tree as it is found when a store is opened: of three levels, with some 1,400 leaves.
    fn stored() -> (Root, Shelf) {
        let mut tree = Tree::empty(4096);
        let changes: Vec<_> = (0..PAIRS).map(|key| (key.to_be_bytes(), Some(Value::from(vec![3; 50])))).collect();
        tree.apply(&Cache::default(), &changes, &mut Counters::default()).unwrap();
        let mut shelf = Shelf::default();
        let Ok(written) = tree.freeze().write(&mut shelf);
        (Root::stored(written.root()), shelf)
    }

    /// Reads `count` keys on from that one, in batches of 128, as a directory is listed; answers how
    /// many rounds it took.
    fn list(root: &Root, cache: &Cache, shelf: &Shelf, from: u32, count: u32, direction: Direction) -> usize {
        let (mut rounds, mut seen) = (0, Vec::new());
        while (seen.len() as u32) < count {
            let next = match (seen.last(), direction) {
                (None, _) => from,
                (Some(last), Direction::Forward) => last + 1,
                (Some(last), Direction::Backward) => last - 1,
            }
            .to_be_bytes();
            let (from, to) = match direction {
                Direction::Forward => (Bound::Included(&next[..]), Bound::Unbounded),
                Direction::Backward => (Bound::Unbounded, Bound::Included(&next[..])),
            };
            let (batch, misses) = cache.patiently(shelf, || {
                let mut batch = Vec::new();
                root.scan(cache, from, to, direction, &mut |key, _| {
                    batch.push(u32::from_be_bytes(key.try_into().unwrap()));
                    if batch.len() < 128 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                Ok(batch)
            });
            seen.extend(batch);
            rounds += misses;
        }
        let expected = |i: u32| if direction == Direction::Forward { from + i } else { from - i };
        assert!(seen.iter().enumerate().all(|(i, key)| *key == expected(i as u32)));
        rounds
    }

    #[test]
    fn a_long_scan_takes_few_rounds_in_both_directions() {
        let (root, shelf) = stored();
        for (direction, from) in [(Direction::Forward, 0), (Direction::Backward, PAIRS - 1)] {
            let cache = Cache::default();
            let rounds = list(&root, &cache, &shelf, from, PAIRS, direction);
            println!("{direction:?}: {rounds} rounds for {} leaves", shelf.leaves);
            assert!(shelf.leaves > 1300 && rounds < 16, "{rounds} rounds for {} leaves", shelf.leaves);
        }
    }

    #[test]
    fn what_is_named_ahead_is_bounded_and_grows_with_what_was_read() {
        let (root, shelf) = stored();
        let cache = Cache::default();
        list(&root, &cache, &shelf, 50_000, 1, Direction::Forward);
        assert!(cache.0.borrow().len() <= 3 + 4 + 4, "{} pages for one key", cache.0.borrow().len());
        list(&root, &cache, &shelf, 50_001, 999, Direction::Forward);
        assert!(cache.0.borrow().len() <= 3 + 4 + 3 * 20, "{} pages for 20 leaves", cache.0.borrow().len());
        for from in (51_000..PAIRS - 1000).step_by(1000) {
            let before = cache.0.borrow().len();
            list(&root, &cache, &shelf, from, 1000, Direction::Forward);
            let read = cache.0.borrow().len() - before;
            assert!(read <= 2 * (1 + 2 * PASSED_MAX), "{read} pages for 20 leaves");
        }
    }

    #[test]
    fn a_scan_names_nothing_beyond_its_bounds() {
        let (root, shelf) = stored();
        for direction in [Direction::Forward, Direction::Backward] {
            let cache = Cache::default();
            let (from, to) = (50_000_u32.to_be_bytes(), 50_010_u32.to_be_bytes());
            cache.patiently(&shelf, || {
                let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
                root.scan(&cache, bounds.0, bounds.1, direction, &mut |_, _| ControlFlow::Continue(()))
            });
            let leaves = cache.0.borrow().values().filter(|page| page.level() == 0).count();
            assert!(leaves <= 2, "{leaves} leaves for ten keys");
        }
    }

    #[test]
    fn gets_in_order_take_few_rounds_and_gets_at_random_read_little_else() {
        let (root, shelf) = stored();
        let cache = Cache::default();
        let get = |key: u32| cache.patiently(&shelf, || root.get(&cache, &key.to_be_bytes()));
        let rounds: usize = (0..PAIRS).map(|key| get(key).1).sum();
        println!("{rounds} rounds of gets for {} leaves", shelf.leaves);
        assert!(rounds < 25, "{rounds} rounds for {} leaves", shelf.leaves);

        // A third of the leaves stay in memory, any ones: a get that misses one reads that.
        cache.0.borrow_mut().clear();
        let mut random = 1_u64;
        let (mut misses, mut read) = (0, 0);
        for _ in 0..20_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let before = cache.0.borrow().len();
            misses += get((random >> 33) as u32 % PAIRS).1;
            read += cache.0.borrow().len() - before;
            let salt = random as u128 >> 7;
            if cache.0.borrow().len() > shelf.leaves as usize / 3 {
                cache.0.borrow_mut().retain(|at, page| page.level() > 0 || (at.checksum ^ salt) & 15 > 0);
            }
        }
        println!("{misses} misses at random read {read} pages");
        assert!(read < misses + misses / 10, "{misses} misses read {read} pages");
    }

    #[test]
    fn short_scans_in_order_take_few_rounds() {
        let (root, shelf) = stored();
        let cache = Cache::default();
        let mut rounds = 0;
        for dir in (0..PAIRS).step_by(20) {
            let (from, to) = (dir.to_be_bytes(), (dir + 20).to_be_bytes());
            let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
            let scan =
                || root.scan(&cache, bounds.0, bounds.1, Direction::Forward, &mut |_, _| ControlFlow::Continue(()));
            rounds += cache.patiently(&shelf, scan).1;
        }
        println!("{rounds} rounds of short scans for {} leaves", shelf.leaves);
        assert!(rounds < 25, "{rounds} rounds for {} leaves", shelf.leaves);
    }

    #[test]
    fn one_miss_of_many_gets_names_what_each_needs() {
        let (root, shelf) = stored();
        let cache = Cache::default();
        let keys: Vec<_> = (0..50).map(|i| (i * 1999_u32).to_be_bytes()).chain([[0xff; 4]]).collect();
        let (values, rounds) = cache.patiently(&shelf, || root.get_all(&cache, &keys));
        assert_eq!(values.iter().filter(|value| value.is_some()).count(), 50);
        assert_eq!((values[50].as_ref(), rounds), (None, 3));
    }
}
