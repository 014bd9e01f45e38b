//! What the kernel holds: counts of lookups and opens, and where pairs are to be found.
//!
//! An entry exists from the first lookup (or open) until the last forget and release. With 400,000
//! entries and names of 20 bytes it takes about 45 MB: 40 bytes a slot in a table that is at worst
//! half empty, and one allocation of 17 bytes + the name for a pair.

use crate::fs::attr::{Attr, Ino};
use crate::fs::key;
use crate::fs::name::Name;
use std::collections::HashMap;

/// Where a pair is: the key of its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(Box<[u8]>);

impl Place {
    pub(crate) fn of(dir: Ino, name: &Name) -> Place {
        Place(key::entry(dir, name).into())
    }

    /// The key of the entry.
    pub(crate) fn key(&self) -> &[u8] {
        &self.0
    }
}

/// What a committed change means for the table.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The caller is told of the node: one more lookup. `Some` for a pair.
    Looked(Ino, Option<Place>),
    /// It is open once more.
    Opened(Ino),
    /// It has no name any more, but is open.
    Unlinked(Ino),
    /// The pair is there now.
    Moved(Ino, Place),
    /// It is no pair any more.
    Promoted(Ino),
    /// It has gone; who still holds it gets these attributes.
    Gone(Ino, Attr),
}

#[derive(Default)]
struct Held {
    /// Of a pair.
    place: Option<Place>,
    lookups: u32,
    opens: u32,
    /// A change that removes it, found not open, is under way.
    doomed: bool,
    /// It goes with its last open.
    unlinked: bool,
}

/// The table. Its owner has it behind a lock.
#[derive(Default)]
pub(crate) struct Table {
    held: HashMap<u64, Held>,
    gone: HashMap<u64, Box<Attr>>,
    version: u64,
}

/// What the table knows of a node.
pub(crate) enum Known {
    /// Removed: its last attributes.
    Gone(Attr),
    /// A pair.
    At(Place),
    /// No pair, or not held.
    Elsewhere,
}

/// What came of an attempt to count an open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    Yes,
    Gone,
    /// A change is about to remove it: ask again when that is through.
    Wait,
}

impl Table {
    /// Rises whenever a node moves, is promoted or goes.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn known(&self, ino: Ino) -> Known {
        match (self.gone.get(&ino.0), self.held.get(&ino.0).and_then(|held| held.place.as_ref())) {
            (Some(attr), _) => Known::Gone(**attr),
            (None, Some(place)) => Known::At(place.clone()),
            (None, None) => Known::Elsewhere,
        }
    }

    /// Counts lookups of nodes that were found in a view taken after `version` was read. False:
    /// something has moved since, nothing was counted, look again (F8).
    pub(crate) fn look(&mut self, version: u64, ino: Ino, place: Option<Place>) -> bool {
        if version != self.version {
            return false;
        }
        self.apply_one(Effect::Looked(ino, place));
        true
    }

    pub(crate) fn open(&mut self, ino: Ino) -> Opened {
        if self.gone.contains_key(&ino.0) {
            return Opened::Gone;
        }
        let held = self.held.entry(ino.0).or_default();
        if held.doomed {
            return Opened::Wait;
        }
        held.opens += 1;
        Opened::Yes
    }

    /// The end of an open; true if it was the last of a node without a name.
    pub(crate) fn release(&mut self, ino: Ino) -> bool {
        let held = self.held.get_mut(&ino.0).filter(|held| held.opens > 0);
        let held = held.unwrap_or_else(|| panic!("{ino}: released, but not open"));
        held.opens -= 1;
        let over = held.opens == 0 && held.unlinked;
        self.drop_if_unused(ino);
        over
    }

    pub(crate) fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(held) = self.held.get_mut(&ino.0) {
            held.lookups = held.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
            self.drop_if_unused(ino);
        }
    }

    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.held.get(&ino.0).is_some_and(|held| held.opens > 0)
    }

    /// Tells whether the node is open; if not, opens wait until [`Table::spare`] or `Gone`.
    pub(crate) fn doom_unless_open(&mut self, ino: Ino) -> bool {
        let held = self.held.entry(ino.0).or_default();
        held.doomed = held.opens == 0;
        held.opens > 0
    }

    /// The change that doomed the node is over.
    pub(crate) fn spare(&mut self, ino: Ino) {
        if let Some(held) = self.held.get_mut(&ino.0) {
            held.doomed = false;
            self.drop_if_unused(ino);
        }
    }

    /// Takes in what a change that was just committed did.
    pub(crate) fn apply(&mut self, effects: Vec<Effect>) {
        effects.into_iter().for_each(|effect| self.apply_one(effect));
    }

    /// How many nodes are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    fn apply_one(&mut self, effect: Effect) {
        match effect {
            Effect::Looked(ino, place) => {
                let held = self.held.entry(ino.0).or_default();
                held.lookups += 1;
                held.place = place;
            }
            Effect::Opened(ino) => self.held.entry(ino.0).or_default().opens += 1,
            Effect::Unlinked(ino) => self.held.entry(ino.0).or_default().unlinked = true,
            Effect::Moved(ino, place) => {
                self.version += 1;
                if let Some(held) = self.held.get_mut(&ino.0) {
                    held.place = Some(place);
                }
            }
            Effect::Promoted(ino) => {
                self.version += 1;
                if let Some(held) = self.held.get_mut(&ino.0) {
                    held.place = None;
                }
            }
            Effect::Gone(ino, attr) => {
                self.version += 1;
                if let Some(held) = self.held.get_mut(&ino.0) {
                    held.place = None;
                    self.gone.insert(ino.0, Box::new(attr));
                    self.drop_if_unused(ino);
                }
            }
        }
    }

    fn drop_if_unused(&mut self, ino: Ino) {
        if self.held.get(&ino.0).is_some_and(|held| held.lookups == 0 && held.opens == 0 && !held.doomed) {
            self.held.remove(&ino.0);
            self.gone.remove(&ino.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(9);

    fn place(name: &[u8]) -> Place {
        Place::of(Ino(1), &Name::from_raw(name).unwrap())
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<(u64, Held)>() <= 40);
    }

    #[test]
    fn entries_last_as_long_as_someone_holds_them() {
        let mut table = Table::default();
        assert!(table.look(0, INO, Some(place(b"a"))) && table.look(0, INO, Some(place(b"a"))));
        assert_eq!(table.open(INO), Opened::Yes);
        table.forget(INO, 2);
        assert!(matches!(table.known(INO), Known::At(at) if at == place(b"a")));
        assert!(!table.release(INO), "it has a name");
        assert!(table.held.is_empty());
        table.apply(vec![Effect::Opened(INO), Effect::Unlinked(INO)]);
        assert!(table.release(INO) && table.held.is_empty());
        table.forget(INO, 1);
    }

    #[test]
    fn a_lookup_that_lost_against_a_rename_is_not_counted() {
        let mut table = Table::default();
        table.apply(vec![Effect::Moved(Ino(4), place(b"b"))]);
        assert!(!table.look(0, INO, Some(place(b"a"))));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn an_open_waits_for_a_removal() {
        let mut table = Table::default();
        assert!(!table.doom_unless_open(INO));
        assert_eq!(table.open(INO), Opened::Wait);
        table.spare(INO);
        assert_eq!(table.len(), 0);
        assert_eq!(table.open(INO), Opened::Yes);
        assert!(table.doom_unless_open(INO));
        assert_eq!(table.open(INO), Opened::Yes);
    }
}
