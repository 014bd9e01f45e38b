//! Walks all records of the file system and tells what is wrong with them.

use crate::fs::acl::{Acl, MODE_BITS};
use crate::fs::attr::{FileType, Ino, ROOT};
use crate::fs::content::sound;
use crate::fs::deferred_record::Deferred;
use crate::fs::entry::Entry;
use crate::fs::error::{FsError, Result};
use crate::fs::fs_record::FsRecord;
use crate::fs::inode::{Body, Inode};
use crate::fs::key;
use crate::fs::name::NAME_MAX;
use crate::fs::node_acl::{Kind, is_stored};
use crate::fs::records::Records;
use bytes::Bytes;
use kivafs::store::{AsMiss, Store, View};
use kivafs::tree::Value;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// Verifies the invariants F1 to F6 and F9 over the store's present state. The answer lists what is wrong,
/// one line each; empty: nothing. Waits for storage; takes some 300 bytes of memory for each node.
pub fn check(store: &Store) -> Result<Vec<String>> {
    let view = store.view();
    let mut check = Check { store, view: &view, wrong: Vec::new(), nodes: HashMap::new() };
    let Some(record) = check.fs_record()? else { return Ok(check.wrong) };
    check.inodes()?;
    check.entries()?;
    check.deferred()?;
    check.pieces()?;
    check.xattrs()?;
    check.verdict(&record);
    Ok(check.wrong)
}

/// What was found of a node.
#[derive(Default)]
struct Found {
    inode: Option<Inode>,
    /// Entries that refer to its record, and one of the directories they are in.
    references: u32,
    seen_in: Option<Ino>,
    /// Entries that are it.
    pairs: u32,
    subdirs: u32,
    deferred: Option<Deferred>,
    piece_bytes: u64,
    has_xattrs: bool,
    /// Kind and permissions, as its entry or record has them.
    is: Option<(FileType, u16)>,
    pair_may_have_xattrs: bool,
    /// What its access ACL says of the mode.
    acl_mode: Option<u16>,
    has_default_acl: bool,
}

struct Check<'a> {
    store: &'a Store,
    view: &'a View,
    wrong: Vec<String>,
    nodes: HashMap<u64, Found>,
}

impl Check<'_> {
    /// Visits a range, fetching what is missing and going on after the last key visited.
    fn visit(&mut self, range: &key::Range, visit: &mut dyn FnMut(&mut Self, &[u8], &Value)) -> Result<()> {
        let mut rest = range.clone();
        loop {
            let view = self.view;
            let mut last = None;
            let done = view.visit(&rest, &mut |key, value| {
                visit(self, key, value);
                last = Some(key.to_vec());
                ControlFlow::Continue(())
            });
            match done {
                Ok(()) => return Ok(()),
                Err(error) => match error.as_miss() {
                    Some(miss) => self.store.fetch(miss)?,
                    None => return Err(error),
                },
            }
            if let Some(mut last) = last {
                last.push(0);
                rest.from = last;
            }
        }
    }

    fn wrong(&mut self, key: &[u8], what: &str) {
        self.wrong.push(format!("record {}: {what}", key.escape_ascii()));
    }

    fn node(&mut self, ino: Ino) -> &mut Found {
        self.nodes.entry(ino.0).or_default()
    }

    /// Decodes a record, or notes that it does not decode.
    fn decode<T>(&mut self, key: &[u8], value: &Value, decode: fn(&Bytes) -> Option<T>) -> Option<(Ino, T)> {
        let Some(ino) = key::ino_of(key) else {
            self.wrong(key, "no inode number");
            return None;
        };
        let record = match value {
            Value::Bytes(bytes) => decode(bytes),
            Value::Extent(_) => None,
        };
        if record.is_none() {
            self.wrong(key, "its bytes make no sense");
        }
        record.map(|record| (ino, record))
    }

    fn fs_record(&mut self) -> Result<Option<FsRecord>> {
        let view = self.view;
        match self.store.patiently(|| view.fs_record()) {
            Ok(Some(record)) => Ok(Some(record)),
            Ok(None) => {
                let mut any = false;
                let all = key::Range { from: vec![0], to: vec![0xff] };
                self.visit(&all, &mut |_, _, _| any = true)?;
                if any {
                    self.wrong(key::FS, "missing");
                }
                Ok(None)
            }
            Err(FsError::Damaged(what)) => {
                self.wrong.push(what.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn inodes(&mut self) -> Result<()> {
        self.visit(&key::all_inodes(), &mut |check, key, value| {
            if let Some((ino, mut inode)) = check.decode(key, value, Inode::decode) {
                if let Body::Inline(content) = &mut inode.body {
                    // It would keep its page in memory.
                    content.clear();
                }
                if key != key::inode(ino) {
                    check.wrong(key, "its key has another length");
                }
                let found = check.node(ino);
                found.is = Some((inode.kind, inode.stat.perm));
                found.inode = Some(inode);
            }
        })
    }

    fn entries(&mut self) -> Result<()> {
        self.visit(&key::all_entries(), &mut |check, key, value| {
            let Some((dir, entry)) = check.decode(key, value, |bytes| Entry::decode(bytes.clone())) else { return };
            let raw = key::name_of(key);
            if raw.len() > NAME_MAX {
                check.wrong(key, "the name is too long");
            }
            let is_directory = matches!(&check.node(dir).inode, Some(inode) if inode.kind == FileType::Directory);
            if !is_directory {
                check.wrong(key, "in no directory");
            }
            match entry {
                Entry::Pair(pair) => {
                    let found = check.node(pair.ino);
                    found.pairs += 1;
                    found.pair_may_have_xattrs = pair.has_xattrs;
                    let kind = if pair.is_symlink { FileType::Symlink } else { FileType::Regular };
                    found.is = Some((kind, pair.stat.perm));
                }
                Entry::Ref(target) => {
                    let found = check.node(target.ino);
                    found.references += 1;
                    found.seen_in = Some(dir);
                    let kind = found.inode.as_ref().map(|inode| inode.kind);
                    match kind {
                        None => check.wrong(key, "what it refers to has no record (F2)"),
                        Some(kind) if kind != target.kind => check.wrong(key, "tells another type (F2)"),
                        Some(FileType::Directory) => check.node(dir).subdirs += 1,
                        Some(_) => {}
                    }
                }
            }
        })
    }

    fn deferred(&mut self) -> Result<()> {
        self.visit(&key::all_deferred(), &mut |check, key, value| {
            if let Some((ino, deferred)) = check.decode(key, value, |bytes| Deferred::decode(bytes)) {
                check.node(ino).deferred = Some(deferred);
            }
        })
    }

    fn pieces(&mut self) -> Result<()> {
        let (mut before, mut of) = (0, None);
        self.visit(&key::all_pieces(), &mut |check, key, value| {
            let (Some(ino), Some(offset)) = (key::ino_of(key), key::offset_of(key)) else {
                return check.wrong(key, "no key of a piece");
            };
            if of != Some(ino) {
                (before, of) = (0, Some(ino));
            }
            let Some(piece) = sound(before, offset, value) else {
                return check.wrong(key, "overlaps, is empty, or crosses a window (F6)");
            };
            before = piece.end();
            let found = check.node(ino);
            found.piece_bytes += value.len() as u64;
            let cut_from = found.deferred.and_then(|deferred| deferred.cut_from);
            let unlinked = found.deferred.is_some_and(|deferred| deferred.unlinked);
            match found.inode.as_ref().map(|inode| &inode.body) {
                Some(Body::Mapped(mapped)) => {
                    let is_cut = cut_from.is_some_and(|from| offset >= from);
                    if before > mapped.size && !is_cut && !unlinked {
                        check.wrong(key, "beyond the end of its file (F6)");
                    }
                }
                _ => check.wrong(key, "belongs to no mapped file (F6)"),
            }
        })
    }

    fn xattrs(&mut self) -> Result<()> {
        let mut placed = Vec::new();
        self.visit(&key::all_xattrs(), &mut |check, key, value| {
            let Some(ino) = key::ino_of(key) else { return check.wrong(key, "no inode number") };
            check.node(ino).has_xattrs = true;
            match (Kind::of_name(key::name_of(key)), value) {
                (None, _) => {}
                (Some(kind), Value::Bytes(bytes)) => check.acl(key, ino, kind, bytes),
                (Some(kind), value) => placed.push((key.to_vec(), ino, kind, value.clone())),
            }
        })?;
        for (key, ino, kind, value) in placed {
            let view = self.view;
            let bytes = self.store.patiently(|| Records::bytes(view, std::slice::from_ref(&value)))?.concat();
            self.acl(&key, ino, kind, &bytes);
        }
        Ok(())
    }

    fn acl(&mut self, key: &[u8], ino: Ino, kind: Kind, bytes: &[u8]) {
        match (Acl::decode(bytes), kind) {
            (None, _) => self.wrong(key, "no ACL (F9)"),
            (Some(acl), Kind::Access) => {
                if !is_stored(&acl, kind) {
                    self.wrong(key, "an ACL that says no more than a mode (F9)");
                }
                self.node(ino).acl_mode = Some(acl.mode());
            }
            (Some(_), Kind::Default) => self.node(ino).has_default_acl = true,
        }
    }

    fn verdict(&mut self, record: &FsRecord) {
        let mut nodes: Vec<(u64, Found)> = self.nodes.drain().collect();
        nodes.sort_by_key(|(ino, _)| *ino);
        let count = nodes.iter().filter(|(_, found)| found.inode.is_some() || found.pairs > 0).count() as u64;
        if count != record.nodes {
            self.wrong.push(format!("number of nodes: {} recorded, {count} found (F4)", record.nodes));
        }
        let parents: HashMap<u64, Ino> = nodes
            .iter()
            .filter_map(|(ino, found)| match found.inode.as_ref()?.body {
                Body::Directory { parent, .. } => Some((*ino, parent)),
                _ => None,
            })
            .collect();
        for (ino, found) in &nodes {
            for what in defects(Ino(*ino), found, record) {
                self.wrong.push(format!("{}: {what}", Ino(*ino)));
            }
        }
        for ino in unreachable_directories(&parents) {
            self.wrong.push(format!("{}: not under the root (F2)", Ino(ino)));
        }
        if !parents.contains_key(&ROOT.0) {
            self.wrong.push("the root directory: missing".into());
        }
        if record.key_dir != ROOT && !parents.contains_key(&record.key_dir.0) {
            self.wrong.push(format!("the key directory, {}: missing", record.key_dir));
        }
    }
}

/// What is wrong with one node.
fn defects(ino: Ino, found: &Found, record: &FsRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    must(ino < record.next_ino, format!("not below {}, the next to be given out (F1)", record.next_ino));
    must(found.pairs <= 1, format!("a pair with {} names (F3)", found.pairs));
    must(found.pairs == 0 || found.inode.is_none(), "both a pair and a record (F3)".into());
    must(found.pairs == 0 || found.deferred.is_none(), "a pair with work left to do (F5)".into());
    let may_have_xattrs = match &found.inode {
        Some(inode) => inode.has_xattrs,
        None => found.pairs > 0 && found.pair_may_have_xattrs,
    };
    must(!found.has_xattrs || may_have_xattrs, "extended attributes of which it does not know".into());
    if let Some((kind, perm)) = found.is {
        let says = found.acl_mode.unwrap_or(perm & MODE_BITS);
        must(says == perm & MODE_BITS, format!("mode {perm:o}, but its ACL says {says:o} (F9)"));
        must(found.acl_mode.is_none() || kind != FileType::Symlink, "a symlink with an ACL (F9)".into());
        must(!found.has_default_acl || kind == FileType::Directory, "a default ACL, but no directory (F9)".into());
    }
    let Some(inode) = &found.inode else {
        must(found.pairs > 0 || found.deferred.is_none(), "work left to do for no node (F5)".into());
        return wrong;
    };
    let names = found.references + u32::from(ino == ROOT);
    must(inode.links == names, format!("{} names recorded, {names} found (F2)", inode.links));
    let unlinked = found.deferred.is_some_and(|deferred| deferred.unlinked);
    must(unlinked == (inode.links == 0), format!("{} names, and removed: {unlinked} (F5)", inode.links));
    let cut_from = found.deferred.and_then(|deferred| deferred.cut_from);
    match &inode.body {
        Body::Directory { parent, subdirs } => {
            let seen_in = if ino == ROOT { Some(ROOT) } else { found.seen_in };
            must(Some(*parent) == seen_in, format!("in {seen_in:?}, but its parent is {parent} (F2)"));
            must(*subdirs == found.subdirs, format!("{subdirs} subdirectories recorded, {} found (F4)", found.subdirs));
        }
        Body::Mapped(mapped) => {
            let bytes = found.piece_bytes;
            must(
                mapped.allocated == bytes,
                format!("{} bytes in pieces recorded, {bytes} found (F6)", mapped.allocated),
            );
            must(mapped.cutting == cut_from.is_some(), "what is cut off is not recorded (F6)".into());
            must(cut_from.is_none_or(|from| mapped.size <= from), "grown over what is cut off (F6)".into());
        }
        Body::Inline(_) | Body::Device(_) | Body::Nothing => {
            must(cut_from.is_none(), "cut off, but not in pieces (F6)".into());
        }
    }
    wrong
}

/// Directories whose parents do not lead to the root.
fn unreachable_directories(parents: &HashMap<u64, Ino>) -> Vec<u64> {
    let mut reachable: HashSet<u64> = HashSet::from([ROOT.0]);
    let mut lost = Vec::new();
    for start in parents.keys() {
        let mut path = HashSet::new();
        let mut at = *start;
        while !reachable.contains(&at) && path.insert(at) {
            match parents.get(&at) {
                Some(parent) => at = parent.0,
                None => break,
            }
        }
        if reachable.contains(&at) {
            reachable.extend(path);
        } else {
            lost.push(*start);
        }
    }
    lost.sort_unstable();
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::acl::tests::acl;
    use crate::fs::{FileSystem, Name, coarse_now};

    fn broken(break_it: impl FnOnce(&mut kivafs::store::Txn<'_>)) -> Vec<String> {
        let store = crate::fs::tests::store();
        let fs = FileSystem::open(store.clone(), coarse_now).unwrap();
        let caller = crate::fs::Caller { uid: 1, gid: 2, umask: 0 };
        fs.mkdir(caller, ROOT, b"d", 0o755).unwrap();
        let file = fs.create(caller, ROOT, b"f", 0o644, crate::fs::IfExists::Fail).unwrap();
        let data = Bytes::from(vec![7; 100_000]);
        fs.write(file.ino, crate::fs::WriteAt::End, &data, false).unwrap();
        assert_eq!(check(&store).unwrap(), Vec::<String>::new());
        let mut txn = store.begin().unwrap();
        break_it(&mut txn);
        txn.commit().unwrap();
        check(&store).unwrap()
    }

    #[test]
    fn each_defect_is_told() {
        let file = Ino(3);
        let name = Name::from_raw(b"f").unwrap();
        let has = |wrong: Vec<String>, what: &str| assert!(wrong.iter().any(|line| line.contains(what)), "{wrong:?}");
        has(broken(|txn| txn.delete(&key::inode(file))), "F2");
        has(broken(|txn| txn.delete(&key::entry(ROOT, &name))), "F2");
        has(broken(|txn| txn.delete(&key::piece(file, 0))), "F6");
        has(broken(|txn| txn.put(&key::piece(file, 200_000), vec![1])), "beyond the end");
        has(broken(|txn| txn.put(&key::piece(Ino(9), 0), vec![1])), "no mapped file");
        has(broken(|txn| txn.put(&key::piece(file, 65_000), vec![1; 700])), "overlaps");
        has(broken(|txn| txn.put(&key::inode(file), vec![1, 2, 3])), "make no sense");
        has(broken(|txn| txn.put(&key::xattr(file, b"user.x"), vec![1])), "attributes");
        let three = acl(6, &[], 4, &[], None, 4).encode();
        let named = acl(6, &[(5, 7)], 4, &[], Some(4), 4).encode();
        let access = |ino| Kind::Access.key(ino);
        has(broken(|txn| txn.put(&access(file), named.clone())), "attributes");
        has(broken(|txn| txn.put(&access(file), vec![2, 0, 0])), "no ACL (F9)");
        has(broken(|txn| txn.put(&access(file), three.clone())), "no more than a mode (F9)");
        has(broken(|txn| txn.put(&access(Ino(2)), named.clone())), "mode 755, but its ACL says 644 (F9)");
        has(broken(|txn| txn.put(&Kind::Default.key(file), three.clone())), "no directory (F9)");
        let long: Vec<(u32, u16)> = (0..400).map(|id| (id, 7)).collect();
        let long = acl(7, &long, 4, &[], Some(1), 4).encode();
        has(broken(|txn| txn.put(&access(Ino(2)), long)), "its ACL says 714 (F9)");
        has(broken(|txn| txn.delete(key::FS)), "missing");
        has(broken(|txn| txn.put(&key::deferred(Ino(99)), vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0])), "F5");
    }
}
