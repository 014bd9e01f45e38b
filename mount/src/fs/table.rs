//! What the kernel holds: counts of lookups and opens, where pairs are to be found, and for how long
//! the kernel has not asked about a node.
//!
//! An entry exists from the first lookup (or open) until the last forget and release. With 400,000
//! entries and names of 20 bytes it takes about 55 MB: one allocation of 56 bytes an entry, one of
//! 9 bytes + the name, and 17 bytes a slot in a table that is at worst half empty.

use crate::fs::attr::{Attr, Ino, ROOT};
use crate::fs::key;
use crate::fs::name::Name;
use lru::LruCache;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a node has its name: the key of that entry. A pair is there itself.
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

    /// The directory. `None`: it came from no place.
    pub(crate) fn dir(&self) -> Option<Ino> {
        key::ino_of(&self.0)
    }

    /// The name in it.
    pub(crate) fn name(&self) -> Option<Name> {
        Name::from_raw(key::name_of(&self.0))
    }
}

/// What the kernel was told and is true no more, because somebody else has changed it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stale {
    /// That a directory has this (shown) name.
    Name(Ino, Vec<u8>),
    /// A file's contents and attributes.
    Contents(Ino),
    /// A node's attributes.
    Attributes(Ino),
}

/// Has the kernel forget these, then calls the second. Returns at once; may be called from any thread.
pub type Forget = Arc<dyn Fn(Vec<Stale>, Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What a committed change means for the table.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The caller is told of the node by this name: one more lookup.
    Looked(Ino, Form, Place),
    /// It is open once more.
    Opened(Ino),
    /// It has no name any more, but stays.
    Unlinked(Ino),
    /// The node has this name now.
    Moved(Ino, Form, Place),
    /// It is no pair any more.
    Promoted(Ino),
    /// It has gone; who still holds it gets these attributes.
    Gone(Ino, Attr),
    /// Its contents were changed by another than the kernel.
    Rewritten(Ino),
    /// This name of it was removed by another than the kernel.
    Unnamed(Ino, Place),
    /// Entries of that directory were made or removed by another than the kernel.
    Touched(Ino),
}

/// Nodes share so many versions, so that a lookup is rarely made again for what became of others:
/// who changes keys changes thousands in the time in which a directory is read.
const VERSIONS: usize = 4096;

/// How a node is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// In the entry that names it.
    Pair,
    /// In a record of its own: a name of it is only that, and may be gone since.
    Record,
}

#[derive(Default)]
struct Held {
    /// Where it is, if it is a pair; otherwise the name that the kernel was last told of.
    place: Option<Place>,
    is_pair: bool,
    lookups: u32,
    opens: u32,
    /// A change that removes it, found not open, is under way.
    doomed: bool,
    /// It has no name, and goes when it stays no more.
    unlinked: bool,
}

/// The table. Its owner has it behind a lock.
pub(crate) struct Table {
    /// In the order in which the kernel last asked about them, or for what is in them.
    held: LruCache<u64, Held>,
    gone: HashMap<u64, Box<Attr>>,
    /// Until then what the kernel holds is removed as if it were open.
    stay_until: Option<Instant>,
    version: u64,
    /// The versions in which nodes changed, each the newest of those nodes that share it.
    changed: Box<[u64]>,
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

/// What came of letting go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// It is still held.
    Held,
    /// It is not.
    Free,
    /// Nor is it, and it has stayed without a name until now.
    Over,
}

/// What came of an attempt to count an open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    Yes,
    Gone,
    /// A change is about to remove it: ask again when that is through.
    Wait,
}

impl Default for Table {
    fn default() -> Table {
        let changed = vec![0; VERSIONS].into();
        Table { held: LruCache::unbounded(), gone: HashMap::new(), stay_until: None, version: 0, changed }
    }
}

impl Table {
    /// Rises whenever a node moves, is promoted or goes, and when another than the kernel changes it or
    /// removes a name of it. (What the kernel asks for itself it keeps in order: it looks for no name
    /// while it removes one there.)
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn known(&mut self, ino: Ino) -> Known {
        let held = self.held.get(&ino.0);
        match (self.gone.get(&ino.0), held.filter(|held| held.is_pair).and_then(|held| held.place.as_ref())) {
            (Some(attr), _) => Known::Gone(**attr),
            (None, Some(place)) => Known::At(place.clone()),
            (None, None) => Known::Elsewhere,
        }
    }

    /// Counts lookups of nodes that were found in a view taken after `version` was read. False:
    /// the node may have moved or changed since, nothing was counted, look again (F8).
    pub(crate) fn look(&mut self, version: u64, ino: Ino, form: Form, place: Place) -> bool {
        if self.changed[version_of(ino)] > version {
            return false;
        }
        self.apply_one(Effect::Looked(ino, form, place));
        true
    }

    pub(crate) fn open(&mut self, ino: Ino) -> Opened {
        if self.gone.contains_key(&ino.0) {
            return Opened::Gone;
        }
        let held = self.slot(ino);
        if held.doomed {
            return Opened::Wait;
        }
        held.opens += 1;
        Opened::Yes
    }

    /// The end of an open; true if it was the last of a node without a name. Of what is not open it is
    /// nothing: who sends requests may be wrong.
    pub(crate) fn release(&mut self, ino: Ino) -> bool {
        let Some(held) = self.held.get_mut(&ino.0).filter(|held| held.opens > 0) else { return false };
        held.opens -= 1;
        let over = held.opens == 0 && held.unlinked;
        self.drop_if_unused(ino);
        over
    }

    pub(crate) fn forget(&mut self, ino: Ino, count: u64) -> Forgotten {
        let mut stayed = false;
        if let Some(held) = self.held.peek_mut(&ino.0) {
            held.lookups = held.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
            stayed = held.unlinked && !self.gone.contains_key(&ino.0);
            self.drop_if_unused(ino);
        }
        match self.held.contains(&ino.0) {
            true => Forgotten::Held,
            false if stayed => Forgotten::Over,
            false => Forgotten::Free,
        }
    }

    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.held.peek(&ino.0).is_some_and(|held| held.opens > 0)
    }

    /// For so long what the kernel holds is not gone with its last name, but when it is let go.
    pub(crate) fn let_stay(&mut self, time: Duration) {
        self.stay_until = Some(Instant::now() + time);
    }

    /// Tells whether the node is to stay without a name: it is open, or held while such things stay.
    pub(crate) fn stays(&self, ino: Ino) -> bool {
        let held = self.held.peek(&ino.0).filter(|_| !self.gone.contains_key(&ino.0));
        let stay = || self.stay_until.is_some_and(|until| Instant::now() < until);
        self.is_open(ino) || held.is_some_and(|held| held.lookups > 0 && stay())
    }

    /// Tells whether the node stays; if not, opens wait until [`Table::spare`] or `Gone`.
    pub(crate) fn doom_unless_it_stays(&mut self, ino: Ino) -> bool {
        let stays = self.stays(ino);
        self.slot(ino).doomed = !stays;
        stays
    }

    /// The change that doomed the node is over.
    pub(crate) fn spare(&mut self, ino: Ino) {
        if let Some(held) = self.held.get_mut(&ino.0) {
            held.doomed = false;
            self.drop_if_unused(ino);
        }
    }

    /// Takes in what a change that was just committed did. Answers what of the kernel's knowledge is
    /// stale now: a lookup that is counted before this is in the answer, if it concerns the kernel, and
    /// one that comes later is looked up again (F8).
    pub(crate) fn apply(&mut self, effects: Vec<Effect>) -> Vec<Stale> {
        let mut stale = Vec::new();
        for effect in effects {
            match &effect {
                Effect::Rewritten(ino) if self.is_held(*ino) => stale.push(Stale::Contents(*ino)),
                Effect::Unnamed(ino, place) if self.is_held(*ino) => {
                    // It has one name less.
                    stale.push(Stale::Attributes(*ino));
                    let name = place.dir().zip(place.name());
                    stale.extend(name.map(|(dir, name)| Stale::Name(dir, name.shown())));
                }
                // The kernel always holds the root.
                Effect::Touched(dir) if *dir == ROOT || self.is_held(*dir) => stale.push(Stale::Attributes(*dir)),
                _ => {}
            }
            self.apply_one(effect);
        }
        stale
    }

    /// Where the kernel was last told of a node that it holds.
    pub(crate) fn told_in(&self, ino: Ino) -> Option<Ino> {
        self.held.peek(&ino.0)?.place.as_ref()?.dir()
    }

    /// Does the kernel hold it?
    fn is_held(&self, ino: Ino) -> bool {
        self.held.peek(&ino.0).is_some_and(|held| held.lookups > 0 || held.opens > 0)
    }

    fn has_changed(&mut self, ino: Ino) {
        self.version += 1;
        self.changed[version_of(ino)] = self.version;
    }

    /// How many nodes are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Of the `count` nodes that the kernel has asked about least lately those that are not open.
    /// All of them then count as asked about: whoever asks again gets the next.
    pub(crate) fn oldest(&mut self, count: usize) -> Vec<Ino> {
        let mut idle = Vec::new();
        for _ in 0..count.min(self.held.len()) {
            let Some((&number, held)) = self.held.peek_lru() else { break };
            if held.opens == 0 && !held.doomed {
                idle.push(Ino(number));
            }
            self.held.promote(&number);
        }
        idle
    }

    /// The name of a node that is held, not open and not removed, as far as the table knows it.
    pub(crate) fn idle_place(&self, ino: Ino) -> Option<Place> {
        let held = self.held.peek(&ino.0).filter(|held| held.opens == 0 && !held.doomed)?;
        held.place.clone().filter(|_| !self.gone.contains_key(&ino.0))
    }

    fn slot(&mut self, ino: Ino) -> &mut Held {
        self.held.get_or_insert_mut(ino.0, Held::default)
    }

    fn apply_one(&mut self, effect: Effect) {
        match effect {
            Effect::Looked(ino, form, place) => {
                let dir = place.dir();
                let held = self.slot(ino);
                held.lookups += 1;
                held.is_pair = form == Form::Pair;
                held.place = Some(place);
                // The kernel can't let go of a directory before what it holds in it.
                dir.map(|dir| self.held.promote(&dir.0));
            }
            Effect::Opened(ino) => self.slot(ino).opens += 1,
            Effect::Unlinked(ino) => {
                // It may have been let go since it was found to stay.
                if let Some(held) = self.held.get_mut(&ino.0) {
                    held.unlinked = true;
                }
            }
            Effect::Moved(ino, form, place) => {
                // Nobody looks for a record at its name.
                if form == Form::Pair {
                    self.has_changed(ino);
                }
                if let Some(held) = self.held.get_mut(&ino.0) {
                    held.place = Some(place);
                }
            }
            Effect::Promoted(ino) => {
                self.has_changed(ino);
                if let Some(held) = self.held.get_mut(&ino.0) {
                    held.is_pair = false;
                }
            }
            // Nobody looks the root up.
            Effect::Touched(ROOT) => {}
            Effect::Rewritten(ino) | Effect::Unnamed(ino, _) | Effect::Touched(ino) => self.has_changed(ino),
            Effect::Gone(ino, attr) => {
                self.has_changed(ino);
                if let Some(held) = self.held.get_mut(&ino.0) {
                    (held.place, held.is_pair) = (None, false);
                    self.gone.insert(ino.0, Box::new(attr));
                    self.drop_if_unused(ino);
                }
            }
        }
    }

    fn drop_if_unused(&mut self, ino: Ino) {
        if self.held.peek(&ino.0).is_some_and(|held| held.lookups == 0 && held.opens == 0 && !held.doomed) {
            self.held.pop(&ino.0);
            self.gone.remove(&ino.0);
        }
    }
}

fn version_of(ino: Ino) -> usize {
    (ino.0 % VERSIONS as u64) as usize
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
        // Beside this, the list's entries have two pointers.
        assert!(size_of::<(u64, Held)>() <= 40);
    }

    #[test]
    fn entries_last_as_long_as_someone_holds_them() {
        let mut table = Table::default();
        assert!(table.look(0, INO, Form::Pair, place(b"a")) && table.look(0, INO, Form::Pair, place(b"a")));
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
        table.apply(vec![Effect::Moved(INO, Form::Pair, place(b"b"))]);
        assert!(!table.look(0, INO, Form::Pair, place(b"a")));
        assert_eq!(table.len(), 0);
        assert!(table.look(0, Ino(4), Form::Pair, place(b"c")), "nothing has happened to that one");
    }

    /// Whichever of the two comes first, the kernel is told.
    #[test]
    fn a_lookup_beside_a_change_of_keys_is_made_again_or_told_of() {
        for effect in [|| Effect::Rewritten(INO), || Effect::Unnamed(INO, place(b"a"))] {
            for form in [Form::Pair, Form::Record] {
                let mut table = Table::default();
                let version = table.version();
                assert_eq!(table.apply(vec![effect()]), [], "the kernel holds nothing");
                assert!(!table.look(version, INO, form, place(b"a")));
                assert!(table.look(table.version(), INO, form, place(b"a")));
                let stale = table.apply(vec![effect()]);
                assert!(stale.contains(&Stale::Contents(INO)) || stale.contains(&Stale::Name(Ino(1), b"a".into())));
                table.forget(INO, 1);
                assert_eq!(table.apply(vec![effect()]), []);
            }
        }
    }

    #[test]
    fn the_oldest_come_first_each_once_and_directories_after_what_is_in_them() {
        let mut table = Table::default();
        table.look(0, Ino(1), Form::Record, Place::of(Ino(99), &Name::from_raw(b"dir").unwrap()));
        for number in 2..=6 {
            table.look(0, Ino(number), Form::Pair, place(&[number as u8]));
        }
        table.known(Ino(3));
        assert_eq!(table.open(Ino(4)), Opened::Yes);
        table.look(0, Ino(5), Form::Pair, place(b"5"));
        assert_eq!(table.oldest(1), [Ino(2)]);
        assert_eq!(table.oldest(5), [6, 3, 5, 1].map(Ino), "4 is open");
        assert_eq!(table.oldest(2), [Ino(2), Ino(6)], "nothing was let go");
        assert_eq!(table.idle_place(Ino(4)), None);
        assert_eq!(table.idle_place(Ino(3)), Some(place(&[3])));
        table.forget(Ino(3), 1);
        assert_eq!((table.oldest(9).len(), table.len()), (4, 5));
    }

    #[test]
    fn what_is_held_stays_for_a_while() {
        let mut table = Table::default();
        assert!(table.look(0, INO, Form::Record, place(b"a")) && !table.stays(INO));
        table.let_stay(Duration::from_secs(3600));
        assert!(table.doom_unless_it_stays(INO) && !table.stays(Ino(10)));
        table.apply(vec![Effect::Unlinked(INO)]);
        assert_eq!(table.open(INO), Opened::Yes);
        assert!(table.release(INO), "only the kernel's knowledge of it is left");
        assert_eq!(table.forget(INO, 1), Forgotten::Over);
        table.let_stay(Duration::ZERO);
        assert!(table.look(0, INO, Form::Record, place(b"a")) && !table.stays(INO));
        assert_eq!(table.forget(INO, 1), Forgotten::Free);
        table.apply(vec![Effect::Unlinked(INO)]);
        assert_eq!((table.len(), table.stays(INO)), (0, false), "let go while its name was removed");
    }

    #[test]
    fn an_open_waits_for_a_removal() {
        let mut table = Table::default();
        assert!(!table.doom_unless_it_stays(INO));
        assert_eq!(table.open(INO), Opened::Wait);
        table.spare(INO);
        assert_eq!(table.len(), 0);
        assert_eq!(table.open(INO), Opened::Yes);
        assert!(table.doom_unless_it_stays(INO));
        assert_eq!(table.open(INO), Opened::Yes);
    }
}
