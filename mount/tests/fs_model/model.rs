//! What POSIX says, as simply as possible: nodes with names, and bytes in memory.

use bytes::Bytes;
use kivafs_mount::fs::*;
use std::cell::Cell;
use std::collections::BTreeMap;

thread_local! {
    pub static NOW: Cell<Time> = const { Cell::new(Time::EPOCH) };
}

pub fn now() -> Time {
    NOW.get()
}

pub const ROOT_CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0 };
pub const SIZE_LIMIT: usize = 300_000;

/// Splitmix64: small, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Lengths and offsets: mostly small, sometimes around the sizes where the form changes.
    pub fn length(&mut self) -> usize {
        match self.below(10) {
            0..4 => self.below(200),
            4 | 5 => 900 + self.below(200),
            6 | 7 => self.below(8000),
            8 => 65_536 * self.below(4) + self.below(3),
            _ => self.below(200_000),
        }
    }

    pub fn bytes(&mut self, length: usize) -> Bytes {
        let seed = self.next();
        (0..length).map(|at| (seed >> (at % 8 * 8)) as u8 ^ (at / 8) as u8 | 1).collect::<Vec<u8>>().into()
    }

    pub fn time(&mut self) -> Time {
        match self.below(3) {
            0 => Time::new(self.next() as i64 >> 20, self.below(1_000_000_000) as u32).unwrap(),
            1 => Time::new(-(self.below(1 << 32) as i64), 5).unwrap(),
            _ => Time::new(1 << 33, 7_000_000).unwrap(),
        }
    }
}

pub type Id = usize;
pub const ROOT_ID: Id = 0;

#[derive(Clone, Debug)]
pub struct Model {
    pub nodes: BTreeMap<Id, Node>,
    pub next: Id,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub ino: Ino,
    pub kind: FileType,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub links: u32,
    pub opens: u32,
    pub rdev: u32,
    /// Content or target.
    pub data: Vec<u8>,
    pub parent: Id,
    pub children: BTreeMap<Vec<u8>, Id>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    pub fn dirs(&self) -> Vec<Id> {
        self.nodes.iter().filter(|(_, node)| node.kind == FileType::Directory).map(|(id, _)| *id).collect()
    }

    pub fn nlink(&self, id: Id) -> u32 {
        let node = &self.nodes[&id];
        let is_dir = |child: &&Id| self.nodes[child].kind == FileType::Directory;
        match node.kind {
            FileType::Directory => 2 + node.children.values().filter(is_dir).count() as u32,
            _ => node.links,
        }
    }

    pub fn path(&self, id: Id) -> Option<Vec<(Id, Vec<u8>)>> {
        if id == ROOT_ID {
            return Some(Vec::new());
        }
        let (dir, name) = self.nodes.iter().find_map(|(dir, node)| {
            node.children.iter().find(|(_, child)| **child == id).map(|(name, _)| (*dir, name.clone()))
        })?;
        let mut path = self.path(dir)?;
        path.push((dir, name));
        Some(path)
    }

    pub fn touch(&mut self, dir: Id) {
        let node = self.nodes.get_mut(&dir).unwrap();
        node.mtime = now();
        node.ctime = now();
    }

    pub fn add(&mut self, dir: Id, name: &[u8], mut node: Node) -> Id {
        let id = self.next;
        self.next += 1;
        let parent = &self.nodes[&dir];
        if parent.perm & 0o2000 != 0 {
            node.gid = parent.gid;
            if node.kind == FileType::Directory {
                node.perm |= 0o2000;
            }
        }
        node.parent = dir;
        self.nodes.insert(id, node);
        self.nodes.get_mut(&dir).unwrap().children.insert(name.to_vec(), id);
        self.touch(dir);
        id
    }

    /// A name of that node is gone. True: so is the node.
    pub fn unlink(&mut self, id: Id) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        node.ctime = now();
        node.links -= 1;
        let gone = node.links == 0 && node.opens == 0;
        if gone {
            self.nodes.remove(&id);
        }
        gone
    }

    pub fn is_under(&self, mut dir: Id, above: Id) -> bool {
        loop {
            if dir == above {
                return true;
            }
            if dir == ROOT_ID {
                return false;
            }
            dir = self.nodes[&dir].parent;
        }
    }
}

pub fn new_node(kind: FileType, perm: u16, caller: Caller) -> Node {
    let time = now();
    Node {
        ino: Ino(0),
        kind,
        perm,
        uid: caller.uid,
        gid: caller.gid,
        atime: time,
        mtime: time,
        ctime: time,
        links: 1,
        opens: 0,
        rdev: 0,
        data: Vec::new(),
        parent: ROOT_ID,
        children: BTreeMap::new(),
        xattrs: BTreeMap::new(),
    }
}

/// Setuid falls, and setgid where the group may execute.
pub fn kill(perm: &mut u16) {
    *perm &= !0o4000;
    if *perm & 0o010 != 0 {
        *perm &= !0o2000;
    }
}

/// How a name that is to be made is refused.
pub fn refused(name: &[u8]) -> Option<FsError> {
    match name {
        name if name.len() > 255 => Some(FsError::NameTooLong),
        b".kivafs" => Some(FsError::NotPermitted),
        _ => None,
    }
}
