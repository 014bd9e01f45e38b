//! One-shot access by path, for the command line. These methods wait for storage.
//!
//! A path is names with '/' between them, from the root; leading, trailing and doubled '/' mean
//! nothing. Names are as shown by a mount. Symlinks are not followed.

use crate::fs::attr::{Attr, Caller, FileType, Ino, ROOT, WriteAt};
use crate::fs::change::Change;
use crate::fs::deferred_record::Deferred;
use crate::fs::entry::INLINE_MAX;
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::{FileSystem, process_owner};
use crate::fs::inode::Body;
use crate::fs::key;
use crate::fs::make::{Blank, make, new_node, touch, with_usual_perm};
use crate::fs::name::Name;
use crate::fs::node::Node;
use crate::fs::node_acl::hand_on;
use crate::fs::records::{Records, decoded};
use crate::fs::remove::drop_link;
use crate::fs::table::{Effect, Place};
use bytes::Bytes;
use kivafs::store::View;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use thiserror::Error;

/// Bytes read or written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Entries looked at in one go.
const LIST_BATCH: usize = 1024;
const NEW_PERM: u16 = 0o644;
const KEY_DIR_PERM: u16 = 0o755;

/// What went wrong with which path. Nothing that anybody could see has changed.
#[derive(Debug, Error)]
pub enum PathError {
    /// The file system refused.
    #[error("{}: {error}", .path.escape_ascii())]
    Fs { path: Vec<u8>, error: FsError },
    /// Reading the input, or writing the output, failed.
    #[error("{}: {error}", .path.escape_ascii())]
    Io { path: Vec<u8>, error: std::io::Error },
}

/// A line of `ls`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name as a mount shows it.
    pub name: Vec<u8>,
    /// Its attributes.
    pub attr: Attr,
}

type PathResult<T> = std::result::Result<T, PathError>;

/// The names that a path is made of.
pub fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

impl FileSystem {
    /// Writes a regular file's content to `out`; answers how many bytes.
    pub fn read_path(&self, path: &[u8], out: &mut dyn Write) -> PathResult<u64> {
        let fs = |error| PathError::Fs { path: path.into(), error };
        // Held and open, so that it may be renamed or removed meanwhile.
        let attr = self.hold(path).map_err(fs)?;
        let copied = self.copy_out(path, attr.ino, out);
        self.release(attr.ino);
        self.forget(attr.ino, 1);
        copied
    }

    /// Makes `path` a regular file with the bytes of `input`, at once: what was there before is seen
    /// until all of it is in. A file that is replaced hands on owner and permissions, but not its
    /// number. Answers how many bytes. Not durable before the store is synced.
    pub fn put_path(&self, caller: Caller, path: &[u8], input: &mut dyn Read) -> PathResult<u64> {
        let fs = |error| PathError::Fs { path: path.into(), error };
        let io = |error| PathError::Io { path: path.into(), error };
        let (parent, name) =
            self.parent(path).and_then(|(parent, name)| Ok((parent, Name::to_make(name)?))).map_err(fs)?;
        let mut chunk = read_chunk(input).map_err(io)?;
        if chunk.len() <= INLINE_MAX {
            self.store().patiently(|| self.put_small(caller, parent, &name, &chunk)).map_err(fs)?;
            return Ok(chunk.len() as u64);
        }
        let ino = self.store().patiently(|| self.new_unnamed(caller, parent)).map_err(fs)?;
        let mut total = 0;
        let filled = loop {
            if chunk.is_empty() {
                chunk = match read_chunk(input) {
                    Ok(chunk) if chunk.is_empty() => break Ok(()),
                    Ok(chunk) => chunk,
                    Err(error) => break Err(io(error)),
                };
            }
            self.store().wait_for_room();
            match self.store().patiently(|| self.write(ino, WriteAt::End, &chunk, false)) {
                Ok(written) => {
                    total += written as u64;
                    bytes::Buf::advance(&mut chunk, written);
                }
                Err(error) => break Err(fs(error)),
            }
        };
        let done =
            filled.and_then(|()| self.store().patiently(|| self.publish_unnamed(ino, parent, &name)).map_err(fs));
        // Without a name by now, it is removed by the next `deferred_step`.
        self.release(ino);
        done.map(|()| total)
    }

    /// The entries of a directory, in the order of their raw names; of anything else, itself.
    pub fn list_path(&self, path: &[u8]) -> PathResult<Vec<Listed>> {
        self.list(path).map_err(|error| PathError::Fs { path: path.into(), error })
    }

    /// Removes a file's name, or an empty directory.
    pub fn remove_path(&self, path: &[u8]) -> PathResult<()> {
        let removed = self.parent(path).and_then(|(parent, name)| {
            self.store().patiently(|| match self.unlink(parent, name) {
                Err(FsError::IsADirectory) => self.rmdir(parent, name),
                other => other,
            })
        });
        removed.map_err(|error| PathError::Fs { path: path.into(), error })
    }

    fn copy_out(&self, path: &[u8], ino: Ino, out: &mut dyn Write) -> PathResult<u64> {
        let mut offset = 0;
        loop {
            let pieces = self.store().patiently(|| self.read(ino, offset, CHUNK_BYTES));
            let pieces = pieces.map_err(|error| PathError::Fs { path: path.into(), error })?;
            if pieces.is_empty() {
                return Ok(offset);
            }
            for piece in pieces {
                out.write_all(&piece).map_err(|error| PathError::Io { path: path.into(), error })?;
                offset += piece.len() as u64;
            }
        }
    }

    /// Makes this directory, and those above it, and has its entries be the keys from now on. Only in a store
    /// without files. Not durable before the store is synced.
    pub fn choose_key_dir(&mut self, path: &[u8]) -> PathResult<()> {
        self.key_dir = self.make_key_dir(path).map_err(|error| PathError::Fs { path: path.into(), error })?;
        Ok(())
    }

    fn make_key_dir(&self, path: &[u8]) -> Result<Ino> {
        if self.store().patiently(|| self.nodes())? > 1 {
            return Err(FsError::NotEmpty);
        }
        let names = names(path).map(Name::to_make).collect::<Result<Vec<Name>>>()?;
        // All of it at once, or a crash would leave some of the directories, and the keys in the root.
        self.store().patiently(|| {
            let mut change = self.change()?;
            let mut dir = ROOT;
            for name in &names {
                let body = Body::Directory { parent: dir, subdirs: 0 };
                let blank = Blank { kind: FileType::Directory, perm: KEY_DIR_PERM, body };
                dir = make(&mut change, process_owner(), dir, name, blank)?.ino;
            }
            change.fs_record()?.key_dir = dir;
            change.commit()?;
            Ok(dir)
        })
    }

    /// The directory that holds the last name, and that name. `Invalid`: there is none (the root).
    fn parent<'a>(&self, path: &'a [u8]) -> Result<(Ino, &'a [u8])> {
        let mut names: Vec<&[u8]> = names(path).collect();
        let last = names.pop().ok_or(FsError::Invalid)?;
        let mut dir = ROOT;
        for name in names {
            let attr = self.look_once(dir, name)?;
            if attr.kind != FileType::Directory {
                return Err(FsError::NotADirectory);
            }
            dir = attr.ino;
        }
        Ok((dir, last))
    }

    fn walk(&self, path: &[u8]) -> Result<Attr> {
        match self.parent(path) {
            Ok((dir, name)) => self.look_once(dir, name),
            Err(FsError::Invalid) => self.store().patiently(|| self.getattr(ROOT)),
            Err(error) => Err(error),
        }
    }

    fn look_once(&self, dir: Ino, name: &[u8]) -> Result<Attr> {
        let attr = self.store().patiently(|| self.lookup(dir, name))?;
        self.forget(attr.ino, 1);
        Ok(attr)
    }

    /// Looks a regular file up and opens it.
    fn hold(&self, path: &[u8]) -> Result<Attr> {
        let (dir, name) = self.parent(path).map_err(|error| match error {
            FsError::Invalid => FsError::IsADirectory,
            error => error,
        })?;
        let attr = self.store().patiently(|| self.lookup(dir, name))?;
        let opened = match attr.kind {
            FileType::Regular => self.open_file(attr.ino),
            FileType::Directory => Err(FsError::IsADirectory),
            _ => Err(FsError::Invalid),
        };
        if let Err(error) = opened {
            self.forget(attr.ino, 1);
            return Err(error);
        }
        Ok(attr)
    }

    /// A file that fits into a pair: one transaction.
    fn put_small(&self, caller: Caller, parent: Ino, name: &Name, content: &Bytes) -> Result<()> {
        let mut change = self.change()?;
        let dir = change.directory(parent)?;
        let (caller, blank) = with_usual_perm(caller, NEW_PERM, Body::Inline(content.clone()));
        let mut node = new_node(&mut change, caller, Some(&dir), blank)?;
        node.place = Some(Place::of(parent, name));
        publish(&mut change, dir, name, node)?;
        change.commit()
    }

    /// A file without a name, open: a crash or `release` leaves nothing of it.
    fn new_unnamed(&self, caller: Caller, parent: Ino) -> Result<Ino> {
        let mut change = self.change()?;
        let dir = change.directory(parent)?;
        let (caller, blank) = with_usual_perm(caller, NEW_PERM, Body::Inline(Bytes::new()));
        let mut node = new_node(&mut change, caller, Some(&dir), blank)?;
        node.inode.links = 0;
        change.put_node(&node);
        let deferred = Deferred { unlinked: true, cut_from: None };
        change.txn_mut().put(&key::deferred(node.ino), deferred.encode());
        change.then(Effect::Opened(node.ino));
        change.then(Effect::Unlinked(node.ino));
        change.commit()?;
        Ok(node.ino)
    }

    fn publish_unnamed(&self, ino: Ino, parent: Ino, name: &Name) -> Result<()> {
        let mut change = self.change()?;
        let mut node = change.node(ino)?;
        let dir = change.directory(parent)?;
        node.inode.links = 1;
        change.txn_mut().delete(&key::deferred(ino));
        publish(&mut change, dir, name, node)?;
        change.commit()
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Listed>> {
        let attr = self.walk(path)?;
        if attr.kind != FileType::Directory {
            let (_, name) = self.parent(path)?;
            return Ok(vec![Listed { name: name.into(), attr }]);
        }
        let view = self.store().view();
        let mut listed = Vec::new();
        let mut rest = key::entries(attr.ino);
        loop {
            let batch = self.store().patiently(|| list_batch(&view, &rest))?;
            let Some((last, _)) = batch.last() else { return Ok(listed) };
            rest = key::entries_after(attr.ino, last.raw());
            listed.extend(batch.into_iter().map(|(name, attr)| Listed { name: name.shown(), attr }));
        }
    }
}

/// The first entries of a range.
fn list_batch(view: &View, range: &key::Range) -> Result<Vec<(Name, Attr)>> {
    let mut found = Vec::new();
    view.visit(range, &mut |key, value| {
        found.push((key.to_vec(), View::found_entry(key, value.clone())));
        if found.len() < LIST_BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let mut listed = Vec::with_capacity(found.len());
    for (key, entry) in found {
        let name = decoded(&key, Name::from_raw(key::name_of(&key)))?;
        let dir = decoded(&key, key::ino_of(&key))?;
        let node = Node::of_entry(view, Place::of(dir, &name), entry?)?;
        listed.push((name, node.attr()));
    }
    Ok(listed)
}

/// Puts a new file in the place of whatever has that name.
fn publish(change: &mut Change<'_>, mut dir: Node, name: &Name, mut node: Node) -> Result<()> {
    let place = Place::of(dir.ino, name);
    if let Some(old) = change.child(dir.ino, name)? {
        if old.inode.kind == FileType::Directory {
            return Err(FsError::IsADirectory);
        }
        if old.inode.kind == FileType::Regular {
            hand_on(change, &old, &mut node)?;
            let (new, old) = (&mut node.inode.stat, &old.inode.stat);
            (new.uid, new.gid) = (old.uid, old.gid);
        }
        drop_link(change, old)?;
    }
    change.put_named(&mut node, place);
    touch(change, &mut dir);
    Ok(())
}

/// The next bytes, as many as make a write; empty at the end.
fn read_chunk(input: &mut dyn Read) -> std::io::Result<Bytes> {
    let mut chunk = Vec::new();
    input.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}
