//! Reading one consistent state.

use super::durable::Undone;
use super::{Core, Era, Miss, StoreError};
use crate::log::Payload;
use crate::tree::{Direction, Near, Root, Value};
use bytes::Bytes;
use std::cell::RefCell;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;

/// One consistent state.
#[derive(Clone)]
pub struct View {
    core: Arc<Core>,
    root: Root,
    era: Era,
    /// What some keys are in this state, whatever the tree has.
    undone: Option<Arc<Undone>>,
}

impl View {
    pub(super) fn new(core: &Arc<Core>) -> View {
        let published = core.published.read();
        View { core: core.clone(), root: published.root.clone(), era: published.era.clone(), undone: None }
    }

    /// The state with that root, but for these keys.
    pub(super) fn of(core: &Arc<Core>, root: Root, era: Era, undone: Option<Arc<Undone>>) -> View {
        View { core: core.clone(), root, era, undone }
    }

    /// What a key is, if not what the tree has.
    fn undone(&self, key: &[u8]) -> Option<&Option<Value>> {
        self.undone.as_ref()?.get(key)
    }

    /// Whether this is the state that `other` is. (It may be, and this is false, when pages were stored
    /// meanwhile.)
    pub fn is_same(&self, other: &View) -> bool {
        self.root.is_same(&other.root) && self.undone.is_none() && other.undone.is_none()
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        match self.undone(key) {
            Some(value) => Ok(value.clone()),
            None => self.root.get(&self.core.cache, key).map_err(|error| StoreError::from(error).in_era(&self.era)),
        }
    }

    /// The values of these keys, in the same order. One miss names the pages that are missing for any
    /// of them, or some hundreds of those.
    pub fn get_all<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>, StoreError> {
        let found = self.root.get_all(&self.core.cache, keys);
        let mut values = found.map_err(|error| StoreError::from(error).in_era(&self.era))?;
        if self.undone.is_some() {
            for (key, value) in keys.iter().zip(&mut values) {
                if let Some(undone) = self.undone(key.as_ref()) {
                    value.clone_from(undone);
                }
            }
        }
        Ok(values)
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
        let Some(undone) = &self.undone else {
            return self.scan_tree(from, to, direction, visit);
        };
        let bounds = (from, to);
        let mut undone: Vec<_> =
            undone.iter().filter(|(key, _)| RangeBounds::<[u8]>::contains(&bounds, &key[..])).collect();
        // The next is the last.
        if direction == Direction::Forward {
            undone.reverse();
        }
        let is_due = |key: &[u8], at: &[u8]| match direction {
            Direction::Forward => key <= at,
            Direction::Backward => key >= at,
        };
        let mut is_over = false;
        self.scan_tree(from, to, direction, &mut |at, value| {
            let mut is_undone = false;
            while let Some((key, before)) = undone.pop_if(|(key, _)| is_due(key, at)) {
                is_undone = key[..] == *at;
                if let Some(before) = before
                    && visit(key, before).is_break()
                {
                    is_over = true;
                    return ControlFlow::Break(());
                }
            }
            let visited = if is_undone { ControlFlow::Continue(()) } else { visit(at, value) };
            is_over = visited.is_break();
            visited
        })?;
        while !is_over && let Some((key, before)) = undone.pop() {
            is_over = before.as_ref().is_some_and(|before| visit(key, before).is_break());
        }
        Ok(())
    }

    fn scan_tree(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.root
            .scan(&self.core.cache, from, to, direction, visit)
            .map_err(|error| StoreError::from(error).in_era(&self.era))
    }

    /// The bytes that these values stand for, in the same order. One miss names everything that
    /// is not in memory, so that it is fetched in few reads.
    pub fn read(&self, values: &[Value]) -> Result<Vec<Bytes>, StoreError> {
        self.core.read_bytes(values).map_err(|error| error.in_era(&self.era))
    }

    /// As [`View::read`], for who reads on and will not ask for them again soon: they are kept in
    /// memory no longer for it. What was read in one go can be joined again without a copy.
    pub fn read_once(&self, values: &[Value]) -> Result<Vec<Payload>, StoreError> {
        self.core.read_values(values, Reuse::Unlikely).map_err(|error| error.in_era(&self.era))
    }

    /// Begins to fetch the units of these values, as [`Store::fetch_soon`](super::Store::fetch_soon).
    ///
    /// Only the first `wanted` of them are asked for; those behind will be, and if it `goes_on` others behind those.
    /// Answers how many were taken, from the first: perhaps less or more than wanted, so that what can come with
    /// one request does not come in parts.
    pub fn prefetch(&self, values: &[Value], wanted: usize, goes_on: bool) -> usize {
        let now = self.core.worth_fetching_now(values, wanted, goes_on);
        self.core.prefetch(&values[..now], &self.era);
        now
    }
}

/// Reads a state where keys that follow each other in time are often neighbours: then most of them cost no search
/// for their page.
pub struct Cursor {
    view: View,
    last: RefCell<Option<Near>>,
}

impl Cursor {
    /// At no key yet.
    pub fn new(view: View) -> Cursor {
        Cursor { view, last: RefCell::new(None) }
    }

    /// The state that it reads.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        if self.view.undone.is_some() {
            return self.view.get(key);
        }
        let View { core, root, era, .. } = &self.view;
        let found = root.get_near(&core.cache, &mut self.last.borrow_mut(), key);
        found.map_err(|error| StoreError::from(error).in_era(era))
    }
}

/// Whether what is read will be asked for again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reuse {
    Likely,
    Unlikely,
}

impl Core {
    pub(super) fn read_bytes(&self, values: &[Value]) -> Result<Vec<Bytes>, StoreError> {
        let payloads = self.read_values(values, Reuse::Likely)?;
        Ok(payloads.into_iter().map(Payload::into_bytes).collect())
    }

    fn read_values(&self, values: &[Value], reuse: Reuse) -> Result<Vec<Payload>, StoreError> {
        let mut answers = Vec::with_capacity(values.len());
        let mut miss = Miss::default();
        let unit = |at| match reuse {
            Reuse::Likely => self.cache.unit(at),
            Reuse::Unlikely => self.cache.unit_once(at),
        };
        for value in values {
            match value {
                Value::Bytes(bytes) => answers.push(bytes.clone().into()),
                Value::Extent(extent) => match unit(&extent.unit) {
                    Some(unit) => {
                        let (start, length) = (extent.offset as usize, extent.length as usize);
                        if unit.len() < start + length {
                            let what = format!(
                                "unit at {}: {} bytes, of which {start}..{} are in use",
                                extent.unit,
                                unit.len(),
                                start + length
                            );
                            return Err(StoreError::Damaged(what.into()));
                        }
                        answers.push(unit.slice(start..start + length));
                    }
                    None if miss.units.contains(&extent.unit) => {}
                    None => miss.units.push(extent.unit),
                },
            }
        }
        if miss.units.is_empty() { Ok(answers) } else { Err(StoreError::Miss(miss)) }
    }
}
