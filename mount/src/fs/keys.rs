//! Keys and values: the key directory as a key-value store (C9). It is the root, unless another was chosen.
//!
//! A key is any 0 to 255 bytes: the raw name of an entry. Its value is the content of a regular file of
//! at most [`VALUE_MAX`] bytes. Whatever else has a name has no value: reading passes over it. But it
//! is there: `Absent` does not hold, `Present` does. A longer file can be overwritten and deleted as
//! any other; a directory, symlink or device cannot.
//!
//! Who changes keys is not the kernel, which believes what it was told until it is told otherwise: a
//! change answers what of that is stale now.

use crate::fs::attr::{Caller, FileType, Ino};
use crate::fs::change::Change;
use crate::fs::content;
use crate::fs::entry::Entry;
use crate::fs::error::Result;
use crate::fs::filesystem::FileSystem;
use crate::fs::inode::Body;
use crate::fs::key;
use crate::fs::make::{new_node, touch, with_usual_perm};
use crate::fs::name::{NAME_MAX, Name};
use crate::fs::node::Node;
use crate::fs::node_acl::ACL_COST_MAX;
use crate::fs::records::{Records, decoded};
use crate::fs::remove::drop_link;
use crate::fs::setattr::{drop_privileges, overwrite};
use crate::fs::table::{Effect, Place, Stale};
use bytes::Bytes;
use kivafs::store::{Store, TXN_BYTES_MAX, View};
use std::ops::ControlFlow;

/// Longest value, in bytes.
pub const VALUE_MAX: usize = 255;

/// Most keys that are looked for at once, or changed in one transaction. Each may be in a page of its own. Where these
/// do not find room in the cache together, which those of long keys may not in a small one, fewer have to be asked for.
pub const KEYS_AT_ONCE: usize = 400;
/// Bytes of keys and values that one transaction takes.
const BATCH_BYTES: usize = 128 << 10;
/// What a change has at most beside its key and value.
const CHANGE_OVERHEAD: usize = 150;

/// So many changes are one transaction, however long their keys and values are, unless one is of a file
/// that lies in pieces.
pub const CHANGES_AT_ONCE: usize = BATCH_BYTES / (CHANGE_OVERHEAD + NAME_MAX + VALUE_MAX);
/// Of more new files with ACLs the transaction would become too large.
const _: () = assert!(BATCH_BYTES + CHANGES_AT_ONCE * ACL_COST_MAX < TXN_BYTES_MAX && CHANGES_AT_ONCE <= KEYS_AT_ONCE);

/// What must be so for a change to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum If {
    /// Nothing.
    Always,
    /// Nothing has the name.
    Absent,
    /// Something has the name.
    Present,
    /// The key's value is this.
    Equals(Bytes),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: Name,
    /// When it is made.
    pub only: If,
    /// What the key's value is to be (at most [`VALUE_MAX`] bytes); none: the name goes.
    pub value: Option<Bytes>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was to be.
    Done,
    /// The condition did not hold.
    Not,
    /// What has the name is no regular file.
    NoFile,
}

/// What came of some changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Of each of them, in their order.
    pub outcomes: Vec<Outcome>,
    /// What the kernel holds and is stale now; the same may be named more than once. To be told to it
    /// after this: told before, it could ask and be told the same again.
    pub stale: Vec<Stale>,
}

/// What a key was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFound {
    /// Its value. `None`: it has none.
    pub value: Option<Bytes>,
    /// No crash can take it back. False also where that was not asked for, or cannot be told at once.
    pub is_durable: bool,
}

/// The pairs of a range, or the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// In the order of the keys.
    pub pairs: Vec<(Name, Bytes)>,
    /// The key of the first pair that was left out. `None`: all are here.
    pub next: Option<Name>,
}

impl FileSystem {
    /// The key's value in that state.
    pub fn value_of(&self, view: &View, key: &Name) -> Result<Option<Bytes>> {
        let place = Place::of(self.key_dir, key);
        match view.entry(place.key())? {
            Some(entry) => value(view, place, entry),
            None => Ok(None),
        }
    }

    /// The values of these keys in that state, in the same order. One miss names what is missing for any
    /// of them, or for the first hundreds. `judge`: the view's store, which tells what is durable.
    pub fn values_of(&self, view: &View, keys: &[&Name], judge: Option<&Store>) -> Result<Vec<KeyFound>> {
        let places: Vec<Place> = keys.iter().map(|key| Place::of(self.key_dir, key)).collect();
        let entry_keys: Vec<&[u8]> = places.iter().map(Place::key).collect();
        let entries = view.get_all(&entry_keys)?;
        let are_durable = judge.map_or_else(|| vec![false; keys.len()], |store| store.are_durable(&entry_keys));
        let found = places.into_iter().zip(entries).zip(are_durable).map(|((place, entry), is_durable)| match entry {
            Some(entry) => {
                let entry = View::found_entry(place.key(), entry)?;
                // Of what is not all there, other records may have changed.
                let is_durable = is_durable && matches!(entry, Entry::Pair(_));
                Ok(KeyFound { value: value(view, place, entry)?, is_durable })
            }
            None => Ok(KeyFound { value: None, is_durable }),
        });
        found.collect()
    }

    /// The pairs with keys from `from` on and before `to` (`None`: to the last), as many as have
    /// `bytes_max` bytes of keys and values, each counted with one byte of length; but at least one, if
    /// there is one.
    pub fn pairs_of(&self, view: &View, from: &Name, to: Option<&Name>, bytes_max: usize) -> Result<KeyRange> {
        let mut range = key::entries(self.key_dir);
        range.from = key::entry(self.key_dir, from);
        if let Some(to) = to {
            range.to = key::entry(self.key_dir, to);
        }
        let (mut found, mut bytes, mut failed) = (KeyRange::default(), 0, Ok(()));
        if range.from >= range.to {
            return Ok(found);
        }
        view.visit(&range, &mut |key, entry| {
            let next = decoded(key, Name::from_raw(key::name_of(key))).and_then(|name| {
                let entry = View::found_entry(key, entry.clone())?;
                Ok(value(view, Place::of(self.key_dir, &name), entry)?.map(|value| (name, value)))
            });
            match next {
                Ok(None) => return ControlFlow::Continue(()),
                Ok(Some((name, value))) => {
                    bytes += 2 + name.raw().len() + value.len();
                    if bytes <= bytes_max || found.pairs.is_empty() {
                        found.pairs.push((name, value));
                        return ControlFlow::Continue(());
                    }
                    found.next = Some(name);
                }
                Err(error) => failed = Err(error),
            }
            ControlFlow::Break(())
        })?;
        failed.map(|()| found)
    }

    /// Makes the first of these changes, in order and in one transaction; answers what became of each of
    /// them: at least one (if there is one), and those that are left out are to be asked for again. A
    /// new file gets the store's default owner and permissions (or what the key directory's default ACL says), an
    /// old one keeps its number, owner, names and attributes. A change that changes nothing is not stored.
    pub fn change_keys(&self, changes: &[KeyChange]) -> Result<Changed> {
        let changes = &changes[..at_once(changes)];
        let mut change = self.change()?;
        // Before anything is done, since after a miss all is done again.
        let places: Vec<Place> = changes.iter().map(|asked| Place::of(self.key_dir, &asked.key)).collect();
        let before = change.entries_before(&places)?;
        let mut outcomes = Vec::with_capacity(changes.len());
        let (mut shrinks, mut stores, mut inherited) = (true, false, 0);
        let mut dir = None;
        for (asked, (place, before)) in changes.iter().zip(places.into_iter().zip(before)) {
            let old = change.child_now(place, before)?;
            let is_long = old.as_ref().is_some_and(|node| matches!(node.inode.body, Body::Mapped(_)));
            // Pieces are found by a scan, which does not see what this transaction does to them.
            if is_long && !outcomes.is_empty() {
                break;
            }
            let outcome = verdict(&change, asked, old.as_ref())?;
            outcomes.push(outcome);
            if outcome == Outcome::Done && (old.is_some() || asked.value.is_some()) {
                stores = true;
                shrinks &= asked.value.is_none();
                if old.is_none() || asked.value.is_none() {
                    // Its names change. Only once a transaction is that put.
                    dir = match dir {
                        None => Some(change.directory(self.key_dir)?),
                        dir => dir,
                    };
                }
                inherited += usize::from(carry_out(&mut change, self.key_dir, dir.as_ref(), asked, old)?);
            }
            if is_long || inherited == CHANGES_AT_ONCE {
                break;
            }
        }
        if !stores {
            return Ok(Changed { outcomes, stale: Vec::new() });
        }
        if shrinks {
            change.shrinks();
        }
        if let Some(mut dir) = dir {
            touch(&mut change, &mut dir);
            change.then(Effect::Touched(self.key_dir));
        }
        let stale = change.commit_unasked()?;
        Ok(Changed { outcomes, stale })
    }
}

/// How many of these changes one transaction takes: at least one, if there is one.
fn at_once(changes: &[KeyChange]) -> usize {
    let mut bytes = 0;
    let fits = changes.iter().take(KEYS_AT_ONCE).take_while(|asked| {
        let length = asked.value.as_ref().map_or(0, Bytes::len);
        assert!(length <= VALUE_MAX, "a value of {length} bytes");
        bytes += CHANGE_OVERHEAD + asked.key.raw().len() + length;
        bytes <= BATCH_BYTES
    });
    fits.count()
}

/// The value behind an entry found at `place`. `None`: it has none.
fn value(records: &impl Records, place: Place, entry: Entry) -> Result<Option<Bytes>> {
    let node = match entry {
        Entry::Pair(pair) => Node::of_pair(place, pair),
        Entry::Ref(target) if target.kind != FileType::Regular => return Ok(None),
        entry => Node::of_entry(records, place, entry)?,
    };
    value_of_node(records, &node)
}

fn value_of_node(records: &impl Records, node: &Node) -> Result<Option<Bytes>> {
    match &node.inode.body {
        _ if node.inode.kind != FileType::Regular || node.size() > VALUE_MAX as u64 => Ok(None),
        Body::Inline(content) => Ok(Some(content.clone())),
        _ => Ok(Some(content::read(records, node.ino, 0, node.size())?.concat().into())),
    }
}

fn verdict(change: &Change<'_>, asked: &KeyChange, old: Option<&Node>) -> Result<Outcome> {
    let holds = match (&asked.only, old) {
        (If::Always, _) | (If::Absent, None) | (If::Present, Some(_)) => true,
        (If::Equals(expected), Some(old)) => value_of_node(change.txn(), old)?.as_ref() == Some(expected),
        _ => false,
    };
    let is_file = old.is_none_or(|old| old.inode.kind == FileType::Regular);
    Ok(match (holds, is_file) {
        (false, _) => Outcome::Not,
        (true, false) => Outcome::NoFile,
        (true, true) => Outcome::Done,
    })
}

/// True: it has made a file that inherits an ACL.
fn carry_out(
    change: &mut Change<'_>,
    key_dir: Ino,
    dir: Option<&Node>,
    asked: &KeyChange,
    old: Option<Node>,
) -> Result<bool> {
    match (old, &asked.value) {
        (Some(mut node), Some(value)) => {
            overwrite(change, &mut node, value.clone())?;
            drop_privileges(change, &mut node);
            node.inode.stat.mtime = change.now;
            node.inode.stat.ctime = change.now;
            change.put_node(&node);
            change.then(Effect::Rewritten(node.ino));
        }
        (Some(node), None) => {
            let place = Place::of(key_dir, &asked.key);
            change.delete_name(&place);
            // Before what becomes of the node, which may not be held after that.
            change.then(Effect::Unnamed(node.ino, place));
            drop_link(change, node)?;
        }
        (None, Some(value)) => {
            let record = change.fs_record()?;
            let owner = Caller { uid: record.key_uid, gid: record.key_gid, umask: 0 };
            let (owner, blank) = with_usual_perm(owner, record.key_perm, Body::Inline(value.clone()));
            let mut node = new_node(change, owner, dir, blank)?;
            let place = Place::of(key_dir, &asked.key);
            node.place = Some(place.clone());
            change.put_named(&mut node, place);
            return Ok(node.inode.has_xattrs);
        }
        (None, None) => {}
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::{open_on, store, store_on};
    use crate::fs::{FsError, IfExists, ROOT, RenameMode, WriteAt, check, coarse_now};
    use kivafs::backend::MemoryDisk;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const USER: Caller = Caller { uid: 1000, gid: 1000, umask: 0 };
    const LONG: usize = 300 << 16;

    fn file_system() -> FileSystem {
        FileSystem::open(store(), coarse_now).unwrap()
    }

    fn name(raw: &[u8]) -> Name {
        Name::from_raw(raw).unwrap()
    }

    fn set(key: &[u8], value: &[u8]) -> KeyChange {
        KeyChange { key: name(key), only: If::Always, value: Some(Bytes::copy_from_slice(value)) }
    }

    fn delete(key: &[u8]) -> KeyChange {
        KeyChange { key: name(key), only: If::Always, value: None }
    }

    fn make_all(fs: &FileSystem, mut changes: &[KeyChange]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while !changes.is_empty() {
            let some = fs.store().patiently(|| fs.change_keys(changes)).unwrap().outcomes;
            changes = &changes[some.len()..];
            outcomes.extend(some);
        }
        outcomes
    }

    fn get(fs: &FileSystem, key: &[u8]) -> Option<Bytes> {
        fs.store().patiently(|| fs.value_of(&fs.store().view(), &name(key))).unwrap()
    }

    fn all(fs: &FileSystem, from: &[u8], to: Option<&[u8]>, bytes_max: usize) -> Vec<(Vec<u8>, Bytes)> {
        let (mut from, to) = (name(from), to.map(name));
        let mut all = Vec::new();
        loop {
            let view = fs.store().view();
            let some = || fs.pairs_of(&view, &from, to.as_ref(), bytes_max);
            let KeyRange { pairs, next } = fs.store().patiently(some).unwrap();
            all.extend(pairs.into_iter().map(|(key, value)| (key.raw().to_vec(), value)));
            match next {
                Some(next) => from = next,
                None => return all,
            }
        }
    }

    fn whole(fs: &FileSystem) {
        assert_eq!(check(fs.store()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_long_file_a_directory_and_a_symlink_have_no_value_but_are_there() {
        let fs = file_system();
        let long = fs.create(USER, ROOT, b"long", 0o640, IfExists::Fail).unwrap().ino;
        let bytes = Bytes::from(vec![7; LONG]);
        let mut written = 0;
        while written < LONG {
            let rest = bytes.slice(written..);
            written += fs.store().patiently(|| fs.write(long, WriteAt::End, &rest, false)).unwrap();
        }
        fs.store().patiently(|| fs.mkdir(USER, ROOT, b"dir", 0o755)).unwrap();
        fs.store().patiently(|| fs.symlink(USER, ROOT, b"link", b"long")).unwrap();
        make_all(&fs, &[set(b"a", b"1"), set(b"z", b"")]);
        for key in [&b"long"[..], b"dir", b"link"] {
            assert_eq!(get(&fs, key), None);
            let add = KeyChange { only: If::Absent, ..set(key, b"new") };
            let cas = KeyChange { only: If::Equals(Bytes::new()), ..set(key, b"new") };
            assert_eq!(make_all(&fs, &[add, cas]), [Outcome::Not; 2]);
        }
        assert_eq!(all(&fs, b"", None, 1).len(), 2);
        for key in [&b"dir"[..], b"link"] {
            assert_eq!(make_all(&fs, &[set(key, b"new"), delete(key)]), [Outcome::NoFile; 2]);
        }
        // Twice in one batch, with others: what lies in pieces is overwritten all the same.
        let changes = [set(b"a", b"2"), set(b"long", b"short"), set(b"long", b"shorter"), set(b"b", b"3")];
        assert_eq!(make_all(&fs, &changes), [Outcome::Done; 4]);
        assert_eq!(get(&fs, b"long").unwrap(), &b"shorter"[..]);
        let attr = fs.getattr(long).unwrap();
        assert_eq!((attr.size, attr.perm, attr.uid), (7, 0o640, 1000));
        while fs.store().patiently(|| fs.deferred_step()).unwrap() {}
        whole(&fs);
        assert_eq!(make_all(&fs, &[delete(b"long"), delete(b"none")]), [Outcome::Done; 2]);
        fs.release(long);
        fs.forget(long, 1);
        while fs.store().patiently(|| fs.deferred_step()).unwrap() {}
        whole(&fs);
    }

    /// They came one after another, and each began the whole batch anew.
    #[test]
    fn one_miss_names_what_all_changes_of_a_batch_need() {
        let disk = Arc::new(MemoryDisk::default());
        let keys: Vec<Vec<u8>> = (0..6000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
        let fs = FileSystem::open(store_on(disk.clone()), coarse_now).unwrap();
        make_all(&fs, &keys.iter().map(|key| set(key, &[1; 100])).collect::<Vec<_>>());
        fs.store().close().unwrap();
        drop(fs);
        let fs = FileSystem::open(open_on(disk), coarse_now).unwrap();
        let changes: Vec<KeyChange> = keys.iter().step_by(30).rev().map(|key| set(key, &[2; 100])).collect();
        let mut misses = 0;
        let changed = loop {
            match fs.change_keys(&changes) {
                Err(FsError::Miss(miss)) => fs.store().fetch(&miss).unwrap(),
                changed => break changed.unwrap(),
            }
            misses += 1;
        };
        assert_eq!(changed.outcomes, vec![Outcome::Done; changes.len()]);
        // One a level of the tree.
        assert!((1..5).contains(&misses), "{misses} misses");
        assert_eq!(get(&fs, &keys[30]).unwrap(), &[2; 100][..]);
        whole(&fs);
    }

    #[test]
    fn what_is_set_keeps_what_the_file_is_and_what_is_new_gets_the_default() {
        let fs = file_system();
        let made = fs.create(USER, ROOT, b"old", 0o4711, IfExists::Fail).unwrap();
        make_all(&fs, &[set(b"old", b"value"), set(b"new", b"value")]);
        let old = fs.getattr(made.ino).unwrap();
        assert_eq!((old.ino, old.perm, old.uid, old.nlink, old.size), (made.ino, 0o711, 1000, 1, 5));
        let new = fs.lookup(ROOT, b"new").unwrap();
        assert_eq!((new.perm, new.size), (0o644, 5));
        // Open when it is deleted, as any file.
        make_all(&fs, &[delete(b"old")]);
        assert_eq!(fs.read(made.ino, 0, 9).unwrap().concat(), b"value");
        whole(&fs);
    }

    #[test]
    fn what_the_kernel_holds_and_nothing_else_is_told_to_be_stale() {
        let fs = file_system();
        let stale = |changes: &[KeyChange]| {
            let mut stale = fs.store().patiently(|| fs.change_keys(changes)).unwrap().stale;
            stale.sort();
            stale
        };
        let name_of = |key: &[u8]| Stale::Name(ROOT, name(key).shown());
        let root = || Stale::Attributes(ROOT);
        assert_eq!(stale(&[set(b"a/b", b"1"), set(b"c", b"1")]), [root()]);
        assert_eq!(stale(&[set(b"a/b", b"2"), set(b"c", b"2")]), []);
        assert_eq!(stale(&[KeyChange { only: If::Absent, ..set(b"c", b"3") }, delete(b"none")]), []);
        let held = fs.lookup(ROOT, b"a%2Fb").unwrap().ino;
        assert_eq!(stale(&[set(b"a/b", b"3"), set(b"c", b"3")]), [Stale::Contents(held)]);
        let deleted = [name_of(b"a/b"), root(), Stale::Attributes(held)];
        assert_eq!(stale(&[delete(b"a/b"), delete(b"c")]), deleted);
        // Its attributes are still asked for; a new file of that name is another one.
        assert_eq!(fs.getattr(held).unwrap().nlink, 0);
        assert_eq!(stale(&[set(b"a/b", b"4"), delete(b"a/b")]), [root()]);
        fs.forget(held, 1);
        // By another name, and open: held, too.
        make_all(&fs, &[set(b"linked", b"1"), set(b"open", b"1")]);
        let linked = fs.lookup(ROOT, b"linked").unwrap().ino;
        let dir = fs.mkdir(USER, ROOT, b"dir", 0o755).unwrap().ino;
        fs.link(linked, dir, b"other").unwrap();
        let open = fs.lookup(ROOT, b"open").unwrap().ino;
        fs.open_file(open).unwrap();
        fs.forget(open, 1);
        let rewritten = [Stale::Contents(linked), Stale::Contents(open)];
        assert_eq!(stale(&[set(b"linked", b"2"), set(b"open", b"2")]), rewritten);
        let deleted =
            [name_of(b"linked"), name_of(b"open"), root(), Stale::Attributes(linked), Stale::Attributes(open)];
        assert_eq!(stale(&[delete(b"linked"), delete(b"open")]), deleted);
        assert_eq!((fs.getattr(linked).unwrap().nlink, fs.getattr(open).unwrap().nlink), (1, 0));
    }

    #[test]
    fn another_directory_than_the_root_may_have_the_keys() {
        let store = store();
        let mut fs = FileSystem::open(store.clone(), coarse_now).unwrap();
        fs.choose_key_dir(b"/a//b/").unwrap();
        let again = fs.choose_key_dir(b"c").unwrap_err();
        assert_eq!(again.to_string(), "c: directory not empty");
        drop(fs);
        let fs = FileSystem::open(store, coarse_now).unwrap();
        let parent = fs.lookup(ROOT, b"a").unwrap().ino;
        let dir = fs.key_dir();
        assert_ne!(dir, ROOT);
        let stale = |changes: &[KeyChange]| {
            let mut stale = fs.store().patiently(|| fs.change_keys(changes)).unwrap().stale;
            stale.sort();
            stale
        };
        // Unlike the root, the kernel may not hold it.
        assert_eq!(stale(&[set(b"key", b"1"), set(b".kivafs", b"2")]), []);
        assert_eq!(fs.lookup(parent, b"b").unwrap().ino, dir);
        assert_eq!(stale(&[set(b"other", b"3")]), [Stale::Attributes(dir)]);
        let held = fs.lookup(dir, b"key").unwrap();
        assert_eq!((held.perm, held.size), (0o644, 1));
        let name_held = Stale::Name(dir, b"key".to_vec());
        assert_eq!(stale(&[delete(b"key")]), [name_held, Stale::Attributes(dir), Stale::Attributes(held.ino)]);
        // What lies elsewhere is no key.
        fs.create(USER, ROOT, b"key", 0o644, IfExists::Fail).unwrap();
        assert_eq!((get(&fs, b"key"), get(&fs, b"other").unwrap()), (None, Bytes::from_static(b"3")));
        // It may go anywhere, but not away.
        make_all(&fs, &[delete(b"other"), delete(b".kivafs")]);
        assert!(matches!(fs.rmdir(parent, b"b"), Err(FsError::Busy)));
        fs.mkdir(USER, ROOT, b"empty", 0o755).unwrap();
        let over_it = fs.rename((ROOT, b"empty"), (parent, b"b"), RenameMode::Replace);
        assert!(matches!(over_it, Err(FsError::Busy)));
        fs.rename((parent, b"b"), (ROOT, b"keys"), RenameMode::Replace).unwrap();
        make_all(&fs, &[set(b"key", b"4")]);
        assert_eq!(fs.lookup(fs.lookup(ROOT, b"keys").unwrap().ino, b"key").unwrap().size, 1);
        whole(&fs);
        // No directory.
        let file = fs.lookup(ROOT, b"key").unwrap().ino;
        let mut change = fs.change().unwrap();
        change.fs_record().unwrap().key_dir = file;
        change.commit().unwrap();
        assert_eq!(check(fs.store()).unwrap(), [format!("the key directory, {file}: missing")]);
    }

    #[test]
    fn a_batch_that_changes_nothing_is_not_stored() {
        let fs = file_system();
        make_all(&fs, &[set(b"a", b"1")]);
        fs.store().sync().unwrap();
        let before = fs.store().activity().commits;
        let add = KeyChange { only: If::Absent, ..set(b"a", b"2") };
        let modify = KeyChange { only: If::Present, ..set(b"b", b"2") };
        let outcomes = make_all(&fs, &[delete(b"b"), add, modify]);
        assert_eq!(outcomes, [Outcome::Done, Outcome::Not, Outcome::Not]);
        fs.store().sync().unwrap();
        assert_eq!(fs.store().activity().commits, before);
    }

    /// Few keys, so that they meet.
    fn a_key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(prop::sample::select(vec![0, b'/', b'.', b'a', 255]), 0..3),
            Just(vec![255; 255]),
            Just(b".kivafs".to_vec()),
        ]
    }

    fn a_value() -> impl Strategy<Value = Bytes> {
        prop_oneof![Just(0), Just(1), Just(255usize)]
            .prop_flat_map(|length| (0..3u8).prop_map(move |byte| vec![byte; length].into()))
    }

    fn a_change() -> impl Strategy<Value = KeyChange> {
        let only = prop_oneof![
            3 => Just(If::Always),
            1 => Just(If::Absent),
            1 => Just(If::Present),
            2 => a_value().prop_map(If::Equals)
        ];
        (a_key(), only, prop::option::weighted(0.7, a_value())).prop_map(|(key, only, value)| KeyChange {
            key: name(&key),
            only,
            value,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn keys_are_a_map(
            batches in prop::collection::vec(prop::collection::vec(a_change(), 1..20), 1..12),
            from in a_key(), to in prop::option::of(a_key()), bytes_max in 0..600usize,
        ) {
            let fs = file_system();
            let mut map: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
            for batch in &batches {
                let expected: Vec<Outcome> = batch.iter().map(|change| {
                    let key = change.key.raw();
                    let holds = match &change.only {
                        If::Always => true,
                        If::Absent => !map.contains_key(key),
                        If::Present => map.contains_key(key),
                        If::Equals(value) => map.get(key) == Some(value),
                    };
                    match &change.value {
                        _ if !holds => return Outcome::Not,
                        Some(value) => drop(map.insert(key.to_vec(), value.clone())),
                        None => drop(map.remove(key)),
                    }
                    Outcome::Done
                }).collect();
                prop_assert_eq!(make_all(&fs, batch), expected);
            }
            for (key, value) in &map {
                prop_assert_eq!(&get(&fs, key), &Some(value.clone()));
            }
            prop_assert_eq!(get(&fs, b"none"), None);
            let is_in = |key: &[u8]| key >= &from[..] && to.as_ref().is_none_or(|to| key < &to[..]);
            let expected: Vec<_> = map.iter().filter(|(key, _)| is_in(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(all(&fs, &from, to.as_deref(), bytes_max), expected);
            whole(&fs);
        }
    }
}
