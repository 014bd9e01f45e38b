//! The changes that the next commit takes as its redo.

use super::marks::Marks;
use crate::tree::{Key, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Deref;

/// What becomes of a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Pended {
    /// The key.
    pub key: Key,
    /// Its new value; none: it is gone.
    pub value: Option<Value>,
    /// What it was before the first of its pending changes.
    pub before: Option<Value>,
}

/// Changes, one a key. Many come in the order of their keys: those make up a run, which is only
/// appended to; the others are sorted in where they belong.
#[derive(Default)]
pub struct Pending {
    /// With rising keys.
    run: Vec<Pended>,
    /// Those that came out of order, with what was before. None of their keys is in the run.
    rest: BTreeMap<Key, (Option<Value>, Option<Value>)>,
    /// Of all of them.
    marks: Marks,
}

/// What was pending, in the order of its keys.
#[derive(Default)]
pub struct Taken {
    changes: Vec<Pended>,
    marks: Marks,
}

impl Taken {
    /// Whether one of them is of that key.
    pub fn changes_key(&self, key: &[u8]) -> bool {
        self.marks.may_have(key) && self.changes.binary_search_by(|change| (*change.key).cmp(key)).is_ok()
    }
}

impl Deref for Taken {
    type Target = [Pended];

    fn deref(&self) -> &[Pended] {
        &self.changes
    }
}

impl Pending {
    /// Notes what becomes of a key, which was `before` until now; answers what was to become of it, if
    /// anything was.
    pub fn put(&mut self, key: Key, value: Option<Value>, before: Option<Value>) -> Option<Option<Value>> {
        let may_be_there = self.marks.add(&key);
        if self.run.last().is_none_or(|last| last.key < key) {
            if may_be_there && let Some((put, _)) = self.rest.get_mut(&key) {
                return Some(std::mem::replace(put, value));
            }
            self.run.push(Pended { key, value, before });
            return None;
        }
        if may_be_there && let Some(i) = self.search_run(&key) {
            return Some(std::mem::replace(&mut self.run[i].value, value));
        }
        match self.rest.entry(key) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().0, value)),
            Entry::Vacant(entry) => {
                entry.insert((value, before));
                None
            }
        }
    }

    /// What the keys with a change were before.
    pub fn before(&self) -> impl Iterator<Item = (&Key, &Option<Value>)> {
        let run = self.run.iter().map(|Pended { key, before, .. }| (key, before));
        run.chain(self.rest.iter().map(|(key, (_, before))| (key, before)))
    }

    /// Whether the key has a change.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.marks.may_have(key) && (self.search_run(key).is_some() || self.rest.contains_key(key))
    }

    /// Takes all of them, in the order of their keys.
    pub fn take(&mut self) -> Taken {
        let Pending { run, rest, marks } = std::mem::take(self);
        if rest.is_empty() {
            return Taken { changes: run, marks };
        }
        let mut all = Vec::with_capacity(run.len() + rest.len());
        let mut run = run.into_iter().peekable();
        for (key, (value, before)) in rest {
            while let Some(next) = run.next_if(|next| next.key < key) {
                all.push(next);
            }
            all.push(Pended { key, value, before });
        }
        all.extend(run);
        Taken { changes: all, marks }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }

    fn search_run(&self, key: &[u8]) -> Option<usize> {
        self.run.binary_search_by(|other| (*other.key).cmp(key)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_has_the_same_mark_is_told_apart() {
        let mut pending = Pending::default();
        let key = |number: u32| Key::from(number.to_be_bytes());
        // In order and out of it, so that both parts have some; a third of all bits are marked then.
        for number in (0..15_000).chain((20_000..35_000).rev()) {
            assert_eq!(pending.put(key(number), None, None), None, "{number}");
        }
        let others = || (15_000..20_000).chain(35_000..60_000).map(key);
        assert!(others().filter(|key| pending.marks.may_have(key)).count() > 8000);
        assert!(!others().any(|key| pending.contains(&key)));
        let taken = pending.take();
        assert!(taken.len() == 30_000 && !others().any(|key| taken.changes_key(&key)));
        assert!(!pending.contains(&key(0)) && taken.changes_key(&key(0)));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((prop::collection::vec(0..4_u8, 1..4), any::<bool>()), 0..80)) {
            let (mut pending, mut model) = (Pending::default(), BTreeMap::new());
            for (step, (key, is_put)) in steps.into_iter().enumerate() {
                let value = is_put.then(|| Value::from(vec![step as u8]));
                let was = Some(Value::from(vec![step as u8, 0]));
                prop_assert_eq!(pending.contains(&key), model.contains_key(&key[..]));
                let before = pending.put(key[..].into(), value.clone(), was.clone());
                let first = model.get(&key[..]).map_or(was, |(_, was): &(Option<Value>, Option<Value>)| was.clone());
                let replaced = model.insert(Key::from(key), (value, first));
                prop_assert_eq!(before, replaced.map(|(value, _)| value));
            }
            let before: BTreeMap<Key, Option<Value>> =
                pending.before().map(|(key, before)| (key.clone(), before.clone())).collect();
            let of_model: BTreeMap<Key, Option<Value>> =
                model.iter().map(|(key, (_, before))| (key.clone(), before.clone())).collect();
            prop_assert_eq!(before, of_model);
            let all: Vec<_> = model.into_iter().map(|(key, (value, before))| Pended { key, value, before }).collect();
            let taken = pending.take();
            prop_assert_eq!(&taken[..], &all[..]);
            prop_assert!(all.iter().all(|change| taken.changes_key(&change.key)) && !taken.changes_key(&[9]));
            prop_assert_eq!(&pending.take()[..], &[]);
        }
    }
}
