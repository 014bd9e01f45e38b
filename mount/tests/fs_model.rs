//! Random file operations against a simple model of what POSIX says, with a printed seed.
//!
//! `KIVAFS_SEED=n cargo test --test fs_model` runs that one sequence alone; `KIVAFS_STEPS=n` sets its
//! length.

#[path = "fs_model/model.rs"]
mod model;
#[path = "fs_model/names.rs"]
mod names;

use kivafs::backend::MemoryDisk;
use kivafs::store::{CreateOptions, Geometry, OpenOptions, Store};
use kivafs_mount::fs::*;
use model::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::discriminant;
use std::sync::Arc;

struct World {
    home: Home,
    /// `None` only between closing and opening.
    open: Option<(Arc<Store>, FileSystem)>,
    model: Model,
    random: Random,
    /// Lookups that the kernel would count.
    held: HashMap<Ino, u64>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, home: Home) -> World {
        NOW.set(Time::new(1_000, 0).unwrap());
        let store = home();
        let fs = FileSystem::open(store.clone(), now).unwrap();
        let root = fs.getattr(ROOT).unwrap();
        let mut node = new_node(FileType::Directory, 0o755, Caller { uid: root.uid, gid: root.gid, umask: 0 });
        node.ino = ROOT;
        let model = Model { nodes: BTreeMap::from([(ROOT_ID, node)]), next: 1 };
        World { home, open: Some((store, fs)), model, random: Random(seed), held: HashMap::new(), log: Vec::new() }
    }

    fn store(&self) -> &Store {
        &self.open.as_ref().unwrap().0
    }

    fn fs(&self) -> &FileSystem {
        &self.open.as_ref().unwrap().1
    }

    fn call<T>(&self, operation: impl Fn(&FileSystem) -> Result<T>) -> Result<T> {
        self.store().patiently(|| operation(self.fs()))
    }

    fn note(&mut self, what: String) {
        self.log.push(what);
    }

    /// Runs an operation that is to succeed, or to fail like this.
    fn expect<T>(&self, expected: Option<FsError>, operation: impl Fn(&FileSystem) -> Result<T>) -> Option<T> {
        match (self.call(operation), expected) {
            (Ok(value), None) => Some(value),
            (Err(error), Some(expected)) => {
                assert_eq!(discriminant(&error), discriminant(&expected), "{error} instead of {expected}");
                None
            }
            (Ok(_), Some(expected)) => panic!("worked instead of: {expected}"),
            (Err(error), None) => panic!("failed: {error}"),
        }
    }

    fn hold(&mut self, ino: Ino) {
        *self.held.entry(ino).or_default() += 1;
    }

    /// The number of a node, looked up if the kernel does not hold it.
    fn ino(&mut self, id: Id) -> Ino {
        let ino = self.model.nodes[&id].ino;
        if ino == ROOT || self.held.contains_key(&ino) {
            return ino;
        }
        for (dir, name) in self.model.path(id).expect("open nodes are held") {
            let dir = self.model.nodes[&dir].ino;
            let attr = self.expect(None, |fs| fs.lookup(dir, &name)).unwrap();
            self.hold(attr.ino);
        }
        assert!(self.held.contains_key(&ino), "{ino} has another number now");
        ino
    }

    fn dir(&mut self) -> (Id, Ino) {
        let id = self.random.pick(&self.model.dirs());
        (id, self.ino(id))
    }

    fn name(&mut self) -> Vec<u8> {
        let names: [&[u8]; 14] = [
            b"a",
            b"b",
            b"c",
            b"d",
            b"100%",
            b"a%2Fb",
            b"%00",
            b"%252F",
            b"%-",
            b"%2E",
            b"%2Ekivafs",
            b"\xff\xfe\x01",
            &[b'n'; 255],
            b".kivafs",
        ];
        match self.random.below(60) {
            0 => vec![b'x'; 256],
            1 => vec![self.random.next() as u8 | 0x80, self.random.next() as u8 | 0x41, b'%', b'2'],
            _ => self.random.pick(&names).to_vec(),
        }
    }

    /// A name that is there, mostly.
    fn known(&mut self, dir: Id) -> Vec<u8> {
        let names: Vec<Vec<u8>> = self.model.nodes[&dir].children.keys().cloned().collect();
        if names.is_empty() || self.random.chance(10) { self.name() } else { self.random.pick(&names) }
    }

    fn caller(&mut self) -> Caller {
        if self.random.chance(50) { ROOT_CALLER } else { Caller { uid: 1000, gid: 1000, umask: 0 } }
    }

    fn node(&mut self) -> (Id, Ino) {
        let ids: Vec<Id> = self.model.nodes.keys().copied().collect();
        let id = self.random.pick(&ids);
        (id, self.ino(id))
    }

    fn file(&mut self) -> Option<(Id, Ino)> {
        let files = self.model.nodes.iter().filter(|(_, node)| node.kind == FileType::Regular);
        let ids: Vec<Id> = files.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return None;
        }
        let id = self.random.pick(&ids);
        Some((id, self.ino(id)))
    }

    fn made(&mut self, dir: Id, name: &[u8], mut node: Node, attr: Attr) -> Id {
        assert!(self.model.nodes.values().all(|other| other.ino != attr.ino), "{} given out twice", attr.ino);
        node.ino = attr.ino;
        self.hold(attr.ino);
        self.model.add(dir, name, node)
    }

    /// A node went away: what the kernel still holds of it are attributes.
    fn gone(&mut self, ino: Ino) {
        if self.held.contains_key(&ino) {
            assert_eq!(self.fs().getattr(ino).unwrap().nlink, 0, "{ino}: removed, and has names");
            assert!(matches!(self.call(|fs| fs.open_file(ino)), Err(FsError::Stale)));
            self.forget(ino);
        }
    }

    fn forget(&mut self, ino: Ino) {
        let count = self.held.remove(&ino).unwrap();
        self.fs().forget(ino, count);
    }

    fn check_attr(&self, id: Id, attr: &Attr) {
        let node = &self.model.nodes[&id];
        let size = if node.kind == FileType::Directory { 4096 } else { node.data.len() as u64 };
        let expected = Attr {
            ino: node.ino,
            kind: node.kind,
            size,
            blocks: attr.blocks,
            perm: node.perm,
            nlink: self.model.nlink(id),
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        };
        assert_eq!(*attr, expected);
        assert!(attr.blocks <= size.div_ceil(512), "more blocks than bytes");
    }

    fn check_node(&mut self, id: Id) {
        let ino = self.ino(id);
        let attr = self.expect(None, |fs| fs.getattr(ino)).unwrap();
        self.check_attr(id, &attr);
        let node = self.model.nodes[&id].clone();
        match node.kind {
            FileType::Regular => {
                let read = self.expect(None, |fs| fs.read(ino, 0, SIZE_LIMIT * 4)).unwrap().concat();
                assert!(read == node.data, "{ino}: content differs: {}", differs(&read, &node.data));
            }
            FileType::Symlink => {
                assert_eq!(self.expect(None, |fs| fs.readlink(ino)).unwrap(), node.data);
            }
            _ => {}
        }
        let mut names = Vec::new();
        for (name, value) in &node.xattrs {
            names.extend_from_slice(name);
            names.push(0);
            assert_eq!(self.expect(None, |fs| fs.getxattr(ino, name)).unwrap(), *value);
        }
        assert_eq!(self.expect(None, |fs| fs.listxattr(ROOT_CALLER, ino)).unwrap(), names);
    }

    fn step(&mut self) {
        let past = now();
        let nanos = if self.random.chance(10) { 1 } else { 1_000_000 };
        let nanos = past.nanos() + nanos;
        NOW.set(Time::new(past.seconds() + i64::from(nanos / 1_000_000_000), nanos % 1_000_000_000).unwrap());
        match self.random.below(100) {
            0..10 => self.create(),
            10..28 => self.write(),
            28..34 => self.setattr(),
            34..38 => self.truncate(),
            38..44 => self.make(),
            44..50 => self.unlink(),
            50..53 => self.rmdir(),
            53..63 => self.rename(),
            63..67 => self.link(),
            67..71 => self.xattr(),
            71..75 => self.fallocate(),
            75..80 => self.copy(),
            80..84 => self.list(),
            84..88 => self.open_or_release(),
            88..91 => self.forget_one(),
            91..93 => self.seek(),
            93..95 => self.paths(),
            95..97 => self.sync(),
            97 => self.deferred(),
            _ => self.reopen(),
        }
    }

    fn write(&mut self) {
        let Some((id, ino)) = self.file() else { return };
        let length = self.random.length();
        let size = self.model.nodes[&id].data.len();
        let offset = match self.random.below(4) {
            0 => size,
            1 => self.random.length(),
            _ => self.random.below(size + 1),
        };
        let at = if self.random.chance(20) { WriteAt::End } else { WriteAt::Offset(offset as u64) };
        let offset = if at == WriteAt::End { size } else { offset };
        let length = length.min(SIZE_LIMIT.saturating_sub(offset));
        let (data, killing) = (self.random.bytes(length), self.random.chance(30));
        self.note(format!("write {ino} {at:?} ({offset}) + {length} kill {killing}"));
        assert_eq!(self.expect(None, |fs| fs.write(ino, at, &data, killing)), Some(length));
        if length > 0 {
            let node = self.model.nodes.get_mut(&id).unwrap();
            node.data.resize(size.max(offset + length), 0);
            node.data[offset..offset + length].copy_from_slice(&data);
            (node.mtime, node.ctime) = (now(), now());
            if killing {
                kill(&mut node.perm);
            }
        }
        self.check_node(id);
    }

    fn setattr(&mut self) {
        let ((id, ino), caller) = (self.node(), self.caller());
        let mut set = SetAttr::default();
        let random = &mut self.random;
        if random.chance(40) {
            set.mode = Some(random.below(0o10000) as u32);
        }
        if random.chance(30) {
            set.uid = Some(random.pick(&[0, 1000, 70_000]));
        }
        if random.chance(30) {
            set.gid = Some(random.pick(&[0, 1000, 70_000]));
        }
        if random.chance(30) {
            set.atime = Some(if random.chance(30) { SetTime::Now } else { SetTime::To(random.time()) });
        }
        if random.chance(30) {
            set.mtime = Some(if random.chance(30) { SetTime::Now } else { SetTime::To(random.time()) });
        }
        self.note(format!("setattr {ino} {set:?}"));
        let attr = self.expect(None, |fs| fs.setattr(caller, ino, &set)).unwrap();
        let node = self.model.nodes.get_mut(&id).unwrap();
        // A change of nothing is how the kernel sends chown(2) without an owner.
        let may_chown = caller.uid == 0 || caller.uid == node.uid;
        let sets_owner = set.uid.is_some() || set.gid.is_some() || set == SetAttr::default() && may_chown;
        if node.kind != FileType::Directory && sets_owner {
            kill(&mut node.perm);
        }
        node.perm = set.mode.map_or(node.perm, |mode| mode as u16);
        node.uid = set.uid.unwrap_or(node.uid);
        node.gid = set.gid.unwrap_or(node.gid);
        let time = |set| match set {
            SetTime::Now => now(),
            SetTime::To(time) => time,
        };
        node.atime = set.atime.map_or(node.atime, time);
        node.mtime = set.mtime.map_or(node.mtime, time);
        node.ctime = now();
        self.check_attr(id, &attr);
        self.check_node(id);
    }

    fn truncate(&mut self) {
        let Some((id, ino)) = self.file() else { return };
        let caller = self.caller();
        let old = self.model.nodes[&id].data.len();
        let size = if self.random.chance(50) { self.random.below(old + 1) } else { self.random.length() };
        self.note(format!("truncate {ino} from {old} to {size}"));
        let set = SetAttr { size: Some(size as u64), ..SetAttr::default() };
        self.expect(None, |fs| fs.setattr(caller, ino, &set)).unwrap();
        let node = self.model.nodes.get_mut(&id).unwrap();
        node.data.resize(size, 0);
        (node.mtime, node.ctime) = (now(), now());
        if caller.uid != 0 {
            kill(&mut node.perm);
        }
        self.check_node(id);
    }

    fn xattr(&mut self) {
        let (id, ino) = self.node();
        let name = self.random.pick(&[&b"user.a"[..], b"user.b", b"trusted.c"]).to_vec();
        let has = self.model.nodes[&id].xattrs.contains_key(&name);
        self.note(format!("xattr {ino} {:?}", name.escape_ascii().to_string()));
        if self.random.chance(30) {
            let done = self.expect((!has).then_some(FsError::NoAttribute), |fs| fs.removexattr(ino, &name));
            if done.is_some() {
                let node = self.model.nodes.get_mut(&id).unwrap();
                node.xattrs.remove(&name);
                node.ctime = now();
            }
        } else {
            let how = self.random.pick(&[SetXattr::Any, SetXattr::Create, SetXattr::Replace]);
            let length = self.random.length().min(65_536);
            let value = self.random.bytes(length);
            let expected = match (how, has) {
                (SetXattr::Create, true) => Some(FsError::Exists),
                (SetXattr::Replace, false) => Some(FsError::NoAttribute),
                _ => None,
            };
            if self.expect(expected, |fs| fs.setxattr(ino, &name, &value, how, false)).is_some() {
                let node = self.model.nodes.get_mut(&id).unwrap();
                node.xattrs.insert(name, value.to_vec());
                node.ctime = now();
            }
        }
        self.check_node(id);
    }

    fn fallocate(&mut self) {
        let Some((id, ino)) = self.file() else { return };
        let (offset, length, caller) = (self.random.length(), self.random.length().max(1), self.caller());
        let what = self.random.pick(&[
            Allocate::Reserve,
            Allocate::ReserveKeepSize,
            Allocate::PunchHole,
            Allocate::ZeroRange,
            Allocate::ZeroRangeKeepSize,
        ]);
        self.note(format!("fallocate {ino} {offset} + {length} {what:?}"));
        self.expect(None, |fs| fs.fallocate(caller, ino, offset as u64, length as u64, what)).unwrap();
        let node = self.model.nodes.get_mut(&id).unwrap();
        let end = offset + length;
        let clears = !matches!(what, Allocate::Reserve | Allocate::ReserveKeepSize);
        let grows = matches!(what, Allocate::Reserve | Allocate::ZeroRange) && end > node.data.len();
        if clears {
            let size = node.data.len();
            node.data[offset.min(size)..end.min(size)].fill(0);
        }
        if grows {
            node.data.resize(end, 0);
        }
        (node.mtime, node.ctime) = (now(), now());
        if caller.uid != 0 {
            kill(&mut node.perm);
        }
        self.check_node(id);
    }

    fn copy(&mut self) {
        let (Some((from, from_ino)), Some((to, to_ino))) = (self.file(), self.file()) else { return };
        let size = self.model.nodes[&from].data.len();
        let aligned = self.random.chance(40);
        let mut place = |limit: usize| {
            let place = self.random.below(limit + 1);
            if aligned { place / 4096 * 4096 } else { place }
        };
        let (source, target) = (place(size), place(100_000));
        let length = self.random.length().max(1).min(SIZE_LIMIT - target);
        let caller = self.caller();
        self.note(format!("copy {from_ino} {source} to {to_ino} {target} + {length}"));
        let count = length.min(size - source);
        let overlap = from == to && source < target + count && target < source + count;
        let expected = (count > 0 && overlap).then_some(FsError::Invalid);
        let ends = ((from_ino, source as u64), (to_ino, target as u64));
        let Some(copied) = self.expect(expected, |fs| fs.copy_file_range(caller, ends.0, ends.1, length as u64)) else {
            return;
        };
        let copied = copied as usize;
        assert!(copied <= count && (copied > 0 || count == 0));
        if copied > 0 {
            let bytes = self.model.nodes[&from].data[source..source + copied].to_vec();
            let node = self.model.nodes.get_mut(&to).unwrap();
            let size = node.data.len().max(target + copied);
            node.data.resize(size, 0);
            node.data[target..target + copied].copy_from_slice(&bytes);
            (node.mtime, node.ctime) = (now(), now());
            if caller.uid != 0 {
                kill(&mut node.perm);
            }
        }
        self.check_node(from);
        self.check_node(to);
    }

    fn seek(&mut self) {
        let Some((id, ino)) = self.file() else { return };
        let data = self.model.nodes[&id].data.clone();
        let offset = self.random.below(data.len() + 10);
        self.note(format!("lseek {ino} {offset}"));
        if offset >= data.len() {
            self.expect(Some(FsError::NoData), |fs| fs.lseek(ino, offset as u64, Seek::Hole));
            return;
        }
        let hole = self.expect(None, |fs| fs.lseek(ino, offset as u64, Seek::Hole)).unwrap() as usize;
        assert!((offset..=data.len()).contains(&hole) && data.get(hole).is_none_or(|byte| *byte == 0));
        match self.call(|fs| fs.lseek(ino, offset as u64, Seek::Data)) {
            Ok(found) => {
                let found = found as usize;
                assert!((offset..data.len()).contains(&found) && data[offset..found].iter().all(|byte| *byte == 0));
            }
            Err(FsError::NoData) => assert!(data[offset..].iter().all(|byte| *byte == 0)),
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads a directory in pieces; whatever lasts must appear once.
    fn read_dir(&mut self, id: Id, plus: bool) -> BTreeMap<Vec<u8>, (Ino, Option<Attr>)> {
        let ino = self.ino(id);
        let handle = self.expect(None, |fs| fs.opendir(ino)).unwrap();
        let mut listed = BTreeMap::new();
        let mut offset = 0;
        let mut dots = 0;
        loop {
            let mut room = 1 + self.random.below(5);
            let mut got = Vec::new();
            let started = Cell::new(false);
            self.store()
                .patiently(|| {
                    assert!(!started.get(), "a miss after entries were handed out");
                    self.fs().readdir(handle, offset, plus, &mut |entry| {
                        if room == 0 {
                            return false;
                        }
                        room -= 1;
                        started.set(true);
                        got.push((entry.name.to_vec(), entry.ino, entry.kind, entry.attr.copied(), entry.next));
                        true
                    })
                })
                .unwrap();
            if got.is_empty() {
                break;
            }
            // Sometimes the last entries are asked for again.
            let keep = if self.random.chance(20) { 1 + self.random.below(got.len()) } else { got.len() };
            for (at, (name, ino, kind, attr, next)) in got.into_iter().enumerate() {
                assert_eq!(attr.is_some(), plus);
                let dot = name == b"." || name == b"..";
                if plus && !dot {
                    self.hold(ino);
                }
                if at >= keep {
                    continue;
                }
                offset = next;
                if dot {
                    dots += 1;
                    assert_eq!(kind, FileType::Directory);
                } else {
                    assert!(listed.insert(name, (ino, attr)).is_none(), "listed twice");
                }
            }
        }
        assert_eq!(dots, 2);
        self.fs().releasedir(handle);
        listed
    }

    fn list(&mut self) {
        let ((id, ino), plus) = (self.dir(), self.random.chance(50));
        self.note(format!("list {ino} plus {plus}"));
        self.compare_dir(id, plus);
    }

    fn compare_dir(&mut self, id: Id, plus: bool) {
        let listed = self.read_dir(id, plus);
        let children = self.model.nodes[&id].children.clone();
        assert_eq!(listed.keys().collect::<Vec<_>>(), children.keys().collect::<Vec<_>>());
        for (name, child) in children {
            let (ino, attr) = &listed[&name];
            assert_eq!(*ino, self.model.nodes[&child].ino);
            if let Some(attr) = attr {
                self.check_attr(child, attr);
            }
        }
    }

    fn open_or_release(&mut self) {
        let open: Vec<Id> = self.model.nodes.iter().filter(|(_, node)| node.opens > 0).map(|(id, _)| *id).collect();
        if open.len() > 3 || (!open.is_empty() && self.random.chance(50)) {
            let id = self.random.pick(&open);
            self.note(format!("release {}", self.model.nodes[&id].ino));
            self.release(id);
        } else if let Some((id, ino)) = self.file() {
            self.note(format!("open {ino}"));
            self.expect(None, |fs| fs.open_file(ino)).unwrap();
            self.model.nodes.get_mut(&id).unwrap().opens += 1;
        }
    }

    fn release(&mut self, id: Id) {
        let node = self.model.nodes.get_mut(&id).unwrap();
        node.opens -= 1;
        let (ino, gone) = (node.ino, node.opens == 0 && node.links == 0);
        self.fs().release(ino);
        if gone {
            self.model.nodes.remove(&id);
            self.forget(ino);
        }
    }

    fn forget_one(&mut self) {
        let held: Vec<Ino> = self.held.keys().copied().collect::<BTreeSet<_>>().into_iter().collect();
        if held.is_empty() {
            return;
        }
        let ino = self.random.pick(&held);
        if self.model.nodes.values().any(|node| node.ino == ino && node.opens > 0) {
            return;
        }
        self.note(format!("forget {ino}"));
        self.forget(ino);
    }

    fn paths(&mut self) {
        let id = self.random.pick(&self.model.dirs());
        let mut path = Vec::new();
        for (_, name) in self.model.path(id).unwrap() {
            path.push(b'/');
            path.extend_from_slice(&name);
        }
        let listed = self.fs().list_path(&path).unwrap();
        assert_eq!(listed.len(), self.model.nodes[&id].children.len());
        let name = self.name();
        if refused(&name).is_some() {
            return;
        }
        path.push(b'/');
        path.extend_from_slice(&name);
        self.note(format!("put {:?}", path.escape_ascii().to_string()));
        let length = self.random.length();
        let (data, caller) = (self.random.bytes(length), self.caller());
        let old = self.model.nodes[&id].children.get(&name).copied();
        let put = self.fs().put_path(caller, &path, &mut &data[..]);
        if old.is_some_and(|old| self.model.nodes[&old].kind == FileType::Directory) {
            assert!(matches!(put, Err(PathError::Fs { error: FsError::IsADirectory, .. })));
            return;
        }
        assert_eq!(put.unwrap(), length as u64);
        let mut node = new_node(FileType::Regular, 0o644, caller);
        let kept = old.map(|old| self.model.nodes[&old].clone()).filter(|old| old.kind == FileType::Regular);
        node.data = data.to_vec();
        let dir = self.ino(id);
        let attr = self.expect(None, |fs| fs.lookup(dir, &name)).unwrap();
        let new = self.made(id, &name, node, attr);
        if let Some(kept) = kept {
            let node = self.model.nodes.get_mut(&new).unwrap();
            (node.perm, node.uid, node.gid) = (kept.perm, kept.uid, kept.gid);
        }
        if let Some(old) = old {
            self.dropped(old);
        }
        let mut read = Vec::new();
        self.fs().read_path(&path, &mut read).unwrap();
        assert!(read == data);
        self.check_node(new);
        self.check_node(id);
        if self.random.chance(20) {
            self.fs().remove_path(&path).unwrap();
            self.model.nodes.get_mut(&id).unwrap().children.remove(&name);
            self.model.touch(id);
            self.dropped(new);
        }
    }

    fn sync(&mut self) {
        self.note("sync".into());
        self.store().sync().unwrap();
    }

    fn deferred(&mut self) {
        self.note("deferred".into());
        while self.call(|fs| fs.deferred_step()).unwrap() {}
    }

    /// The process ends without a word, and another one opens the file system; sometimes also the
    /// store, of which then nothing is in memory.
    fn reopen(&mut self) {
        self.note("reopen".into());
        self.held.clear();
        self.model.nodes.retain(|_, node| {
            node.opens = 0;
            node.links > 0
        });
        let (mut store, fs) = self.open.take().unwrap();
        drop(fs);
        if self.random.chance(50) {
            store.close().unwrap();
            drop(store);
            store = (self.home)();
        }
        self.open = Some((store.clone(), FileSystem::open(store, now).unwrap()));
        self.whole();
    }

    fn whole(&mut self) {
        self.deferred();
        let wrong = check(self.store()).unwrap();
        assert!(wrong.is_empty(), "check: {wrong:#?}");
        assert_eq!(self.fs().statfs().unwrap().files, self.model.nodes.len() as u64);
        let ids: Vec<Id> = self.model.nodes.keys().copied().collect();
        for id in ids {
            self.check_node(id);
            if self.model.nodes[&id].kind == FileType::Directory {
                self.compare_dir(id, true);
            }
        }
        assert_eq!(self.fs().held(), self.held.len(), "nodes held");
    }
}

fn differs(read: &[u8], expected: &[u8]) -> String {
    let at = read.iter().zip(expected).position(|(read, expected)| read != expected);
    format!("{} bytes instead of {}, first at {at:?}", read.len(), expected.len())
}

/// Says what led to a failure.
struct Story<'a>(u64, &'a mut World);

impl Drop for Story<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let World { log, .. } = &self.1;
            let last = log.len().saturating_sub(25);
            eprintln!("KIVAFS_SEED={}, after {} operations; the last:\n{}", self.0, log.len(), log[last..].join("\n"));
        }
    }
}

fn run(seed: u64, steps: usize, home: Home) {
    let mut world = World::new(seed, home);
    let story = Story(seed, &mut world);
    for step in 0..steps {
        story.1.step();
        if step % 40 == 39 {
            story.1.whole();
        }
    }
    story.1.whole();
}

/// Opens the store, and opens it again once it was closed.
type Home = Box<dyn Fn() -> Arc<Store>>;

fn in_memory() -> Home {
    let disk = Arc::new(MemoryDisk::default());
    let geometry = Geometry { ring_bytes: 6 << 20, ring_at_first: 6 << 20, segment_bytes: 1 << 20, page_bytes: 4096 };
    Store::create_on(disk.clone(), &CreateOptions { geometry: Some(geometry), ..CreateOptions::default() }).unwrap();
    Box::new(move || Arc::new(Store::open_on(disk.clone(), &OpenOptions::default()).unwrap()))
}

fn runs(seeds: std::ops::Range<u64>, steps: usize, make: fn() -> Home) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let steps = number("KIVAFS_STEPS").map_or(steps, |steps| steps as usize);
    match number("KIVAFS_SEED") {
        Some(seed) => run(seed, steps, make()),
        None => seeds.for_each(|seed| run(seed, steps, make())),
    }
}

#[test]
fn random_operations() {
    runs(0..60, 400, in_memory);
}

#[test]
fn a_long_life() {
    runs(1000..1002, 6000, in_memory);
}
