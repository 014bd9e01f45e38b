//! What a worker's directory holds, after each of its operations.

use crate::random::Random;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// A page. The digest of a file is the sum over blocks of this size, so that an operation touches few.
const BLOCK_BYTES: usize = 4096;
/// No file grows beyond this.
const FILE_BYTES_MAX: usize = 400_000;
/// No write is longer.
const WRITE_BYTES_MAX: usize = 100_000;
const NAMES_MAX: usize = 40;

/// One operation. Paths are relative to the directory. Each is one request that changes something, but
/// for writes: the kernel may cut one where a page ends (after one that it has not cached, say).
#[derive(Clone, Debug)]
pub enum Op {
    MakeDir(String),
    RemoveDir(String),
    Create(String),
    /// At `offset`; with `durable`, by a descriptor opened with O_SYNC.
    Write {
        path: String,
        offset: usize,
        bytes: Vec<u8>,
        durable: bool,
    },
    Append {
        path: String,
        bytes: Vec<u8>,
    },
    Truncate {
        path: String,
        length: usize,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    Unlink(String),
    Fsync(String),
    /// Read it and compare.
    Read(String),
}

impl Op {
    /// Does success say that this, and all that was answered before, is durable?
    pub fn makes_durable(&self) -> bool {
        matches!(self, Op::Fsync(_) | Op::Write { durable: true, .. })
    }

    /// What may happen of it by itself, in order.
    pub fn steps(&self, before: &Model) -> Vec<Op> {
        match self {
            Op::Write { path, offset, bytes, durable } => {
                let step = |offset, bytes| Op::Write { path: path.clone(), offset, bytes, durable: *durable };
                cut_at_pages(*offset, bytes).map(|(offset, bytes)| step(offset, bytes)).collect()
            }
            Op::Append { path, bytes } => {
                let pieces = cut_at_pages(before.content(path).len(), bytes);
                pieces.map(|(_, bytes)| Op::Append { path: path.clone(), bytes }).collect()
            }
            whole => vec![whole.clone()],
        }
    }

    /// Short, for messages.
    pub fn shown(&self) -> String {
        let mut text = format!("{self:?}");
        text.truncate(160);
        text
    }
}

fn cut_at_pages(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        at = bytes.len().min(start + BLOCK_BYTES - (offset + start) % BLOCK_BYTES);
        (start < at).then(|| (offset + start, bytes[start..at].to_vec()))
    })
}

/// A regular file, under any number of names.
#[derive(Clone, Debug, Default)]
struct File {
    content: Vec<u8>,
    mode: u32,
    links: u64,
    /// The sum of its blocks' digests.
    digest: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Dir,
    File(u64),
    Symlink(String),
}

/// What there is: a digest of each path.
pub type Shape = BTreeMap<String, u64>;

/// The directory's content. INVARIANT: `File::links` is the number of names with that number.
#[derive(Clone, Debug, Default)]
pub struct Model {
    names: BTreeMap<String, Node>,
    files: BTreeMap<u64, File>,
    next: u64,
}

impl Model {
    /// A random operation that is possible now; one in `fsync_rarity` asks for durability.
    pub fn choose(&self, random: &mut Random, fsync_rarity: u64) -> Op {
        if random.one_in(fsync_rarity) {
            let any = self.names.keys().nth(random.within(0..self.names.len().max(1))).filter(|path| {
                !matches!(self.names[*path], Node::Symlink(_)) // opening it opens something else
            });
            return Op::Fsync(any.cloned().unwrap_or_default());
        }
        let files = self.of_kind(|node| matches!(node, Node::File(_)));
        let dirs = self.of_kind(|node| matches!(node, Node::Dir));
        if dirs.len() < 2 {
            return Op::MakeDir(format!("d{}", self.next));
        }
        let fresh = |random: &mut Random, kind: &str| {
            let place = random.within(0..dirs.len() + 1);
            let name = format!("{kind}{}", self.next);
            dirs.get(place).map_or(name.clone(), |dir| format!("{dir}/{name}"))
        };
        if files.len() < 4 {
            return Op::Create(fresh(random, "f"));
        }
        let file = files[random.within(0..files.len())].clone();
        let length = self.file(&file).content.len();
        if self.names.len() > NAMES_MAX {
            return Op::Unlink(file);
        }
        match random.within(0..100) {
            0..14 => Op::Create(fresh(random, "f")),
            14..34 => {
                let bytes = some_bytes(random);
                let offset = random.within(0..(length + length / 4 + 2).min(FILE_BYTES_MAX - bytes.len()));
                Op::Write { path: file, offset, bytes, durable: random.one_in(fsync_rarity.saturating_mul(2)) }
            }
            34..52 if length < FILE_BYTES_MAX - WRITE_BYTES_MAX => Op::Append { path: file, bytes: some_bytes(random) },
            34..57 => {
                Op::Truncate { path: file, length: random.within(0..length + length / 2 + 1).min(FILE_BYTES_MAX) }
            }
            57..60 => Op::Chmod { path: file, mode: 0o600 | random.within(0..0o200) as u32 },
            60..68 => Op::Rename { from: file, to: fresh(random, "r") },
            68..74 => Op::Rename { from: file, to: files[random.within(0..files.len())].clone() },
            74..77 => Op::Rename { from: dirs[random.within(0..dirs.len())].clone(), to: format!("e{}", self.next) },
            77..81 => Op::Link { from: file, to: fresh(random, "l") },
            81..84 => Op::Symlink { path: fresh(random, "s"), target: file },
            84..86 if dirs.len() < 6 => Op::MakeDir(format!("d{}", self.next)),
            84..88 => match dirs.iter().find(|dir| !self.names.keys().any(|path| path.starts_with(&format!("{dir}/"))))
            {
                Some(empty) => Op::RemoveDir(empty.clone()),
                None => Op::Read(file),
            },
            88..94 => match self.names.iter().find(|(_, node)| matches!(node, Node::Symlink(_))) {
                Some((symlink, _)) if random.one_in(2) => Op::Unlink(symlink.clone()),
                _ => Op::Unlink(file),
            },
            _ => Op::Read(file),
        }
    }

    fn of_kind(&self, wanted: impl Fn(&Node) -> bool) -> Vec<String> {
        self.names.iter().filter(|(_, node)| wanted(node)).map(|(path, _)| path.clone()).collect()
    }

    fn file(&self, path: &str) -> &File {
        match &self.names[path] {
            Node::File(number) => &self.files[number],
            other => panic!("{path} is {other:?}"),
        }
    }

    pub fn content(&self, path: &str) -> &[u8] {
        &self.file(path).content
    }

    /// What the operation changes.
    pub fn apply(&mut self, op: &Op) {
        self.next += 1;
        match op {
            Op::MakeDir(path) => self.add(path, Node::Dir),
            Op::RemoveDir(path) => self.remove(path),
            Op::Create(path) => {
                self.files.insert(self.next, File { mode: 0o600, ..File::default() });
                self.add(path, Node::File(self.next));
            }
            Op::Write { path, offset, bytes, .. } => self.overwrite(path, *offset, bytes),
            Op::Append { path, bytes } => self.overwrite(path, self.content(path).len(), bytes),
            Op::Truncate { path, length } => {
                let old = self.content(path).len();
                self.change(path, old.min(*length)..old.max(*length), |content| content.resize(*length, 0));
            }
            Op::Chmod { path, mode } => self.file_mut(path).mode = *mode,
            Op::Rename { from, to } => self.rename(from, to),
            Op::Link { from, to } => self.add(to, self.names[from].clone()),
            Op::Symlink { path, target } => self.add(path, Node::Symlink(target.clone())),
            Op::Unlink(path) => self.remove(path),
            Op::Fsync(_) | Op::Read(_) => {}
        }
    }

    fn add(&mut self, path: &str, node: Node) {
        if let Node::File(number) = node {
            self.files.get_mut(&number).expect("a file of that number").links += 1;
        }
        let before = self.names.insert(path.to_owned(), node);
        assert!(before.is_none(), "{path} was there");
    }

    fn remove(&mut self, path: &str) {
        if let Some(Node::File(number)) = self.names.remove(path) {
            let file = self.files.get_mut(&number).expect("a file of that number");
            file.links -= 1;
            if file.links == 0 {
                self.files.remove(&number);
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        match (&self.names[from], self.names.get(to)) {
            // POSIX: two names of one file stay as they are.
            (Node::File(one), Some(Node::File(other))) if one == other => {}
            (Node::Dir, _) => {
                let below = format!("{from}/");
                let moved: Vec<String> = self.names.keys().filter(|path| path.starts_with(&below)).cloned().collect();
                for path in moved {
                    let node = self.names.remove(&path).expect("it was listed");
                    self.names.insert(format!("{to}/{}", &path[below.len()..]), node);
                }
                self.names.remove(from);
                self.names.insert(to.to_owned(), Node::Dir);
            }
            _ => {
                self.remove(to);
                let node = self.names.remove(from).expect("its name");
                self.names.insert(to.to_owned(), node);
            }
        }
    }

    fn overwrite(&mut self, path: &str, offset: usize, bytes: &[u8]) {
        let start = offset.min(self.content(path).len());
        self.change(path, start..offset + bytes.len(), |content| {
            content.resize(content.len().max(offset + bytes.len()), 0);
            content[offset..offset + bytes.len()].copy_from_slice(bytes);
        });
    }

    /// Changes bytes of `range` only, and keeps the digest up.
    fn change(&mut self, path: &str, range: std::ops::Range<usize>, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file_mut(path);
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        file.digest = file.digest.wrapping_sub(digest(&file.content, blocks.clone()));
        change(&mut file.content);
        file.digest = file.digest.wrapping_add(digest(&file.content, blocks));
    }

    fn file_mut(&mut self, path: &str) -> &mut File {
        match &self.names[path] {
            Node::File(number) => self.files.get_mut(number).expect("a file of that number"),
            other => panic!("{path} is {other:?}"),
        }
    }

    pub fn shape(&self) -> Shape {
        let shown = |node: &Node| match node {
            Node::Dir => of_dir(),
            Node::Symlink(target) => of_symlink(target),
            Node::File(number) => {
                let file = &self.files[number];
                of_file(file.mode, file.links, file.content.len() as u64, file.digest)
            }
        };
        self.names.iter().map(|(path, node)| (path.clone(), shown(node))).collect()
    }
}

/// What is really in the directory.
pub fn shape_of(dir: &Path) -> io::Result<Shape> {
    let mut shape = Shape::new();
    collect(dir, "", &mut shape)?;
    Ok(shape)
}

fn collect(dir: &Path, prefix: &str, shape: &mut Shape) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().expect("a name that a worker made");
        let path = format!("{prefix}{name}");
        let metadata = entry.path().symlink_metadata()?;
        let digest = if metadata.is_dir() {
            collect(&entry.path(), &format!("{path}/"), shape)?;
            of_dir()
        } else if metadata.is_symlink() {
            of_symlink(entry.path().read_link()?.to_str().expect("a target that a worker made"))
        } else {
            let content = std::fs::read(entry.path())?;
            let sum = digest(&content, 0..content.len().div_ceil(BLOCK_BYTES));
            of_file(metadata.permissions().mode() & 0o7777, metadata.nlink(), metadata.len(), sum)
        };
        let before = shape.insert(path, digest);
        assert!(before.is_none(), "{} is listed twice", entry.path().display());
    }
    Ok(())
}

/// The sum of the digests of these blocks, as far as they are there. Zeros count nothing.
fn digest(content: &[u8], blocks: std::ops::Range<usize>) -> u64 {
    let mut sum = 0u64;
    for block in blocks {
        let start = (block * BLOCK_BYTES).min(content.len());
        let bytes = &content[start..(start + BLOCK_BYTES).min(content.len())];
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
        sum = sum.wrapping_add(hash(&(block, &bytes[..=last])));
    }
    sum
}

fn of_dir() -> u64 {
    hash(&"directory")
}

fn of_symlink(target: &str) -> u64 {
    hash(&("symlink", target))
}

fn of_file(mode: u32, links: u64, length: u64, digest: u64) -> u64 {
    hash(&("file", mode, links, length, digest))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Mostly few; now and then many.
fn some_bytes(random: &mut Random) -> Vec<u8> {
    let most = [300, 5000, 70_000, WRITE_BYTES_MAX][[0, 0, 0, 0, 0, 1, 1, 1, 2, 3][random.within(0..10)]];
    let length = random.within(1..most);
    random.bytes(length)
}
