//! Names for what is there: link and rename.

use crate::fs::attr::{Attr, Caller, FileType, Ino, ROOT, RenameMode};
use crate::fs::change::Change;
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::FileSystem;
use crate::fs::inode::Body;
use crate::fs::make::{Blank, add_subdir, new_node, touch};
use crate::fs::name::Name;
use crate::fs::node::Node;
use crate::fs::records::Records;
use crate::fs::remove::{drop_directory, drop_link, must_be_empty};
use crate::fs::table::{Effect, Place};

/// Most names of one file. What its record could count is 4096 times that.
pub const LINKS_MAX: u32 = 1 << 20;
/// Directories deeper than this are a circle.
const DEPTH_MAX: u32 = 1 << 20;

impl FileSystem {
    /// Gives a file one more name. The kernel then holds it once more.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let name = Name::to_make(name)?;
        let mut change = self.change()?;
        let mut node = change.node(ino)?;
        let mut dir = change.directory(parent)?;
        if node.inode.kind == FileType::Directory {
            return Err(FsError::NotPermitted);
        }
        if node.inode.links == 0 {
            return Err(FsError::NotFound);
        }
        if change.child(parent, &name)?.is_some() {
            return Err(FsError::Exists);
        }
        if node.inode.links >= LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        change.promote(&mut node, true);
        node.inode.links += 1;
        node.inode.stat.ctime = change.now;
        let place = Place::of(parent, &name);
        change.put_named(&mut node, place.clone());
        touch(&mut change, &mut dir);
        change.look(&node, place);
        change.commit()?;
        Ok(node.attr())
    }

    /// Moves a name to another place, or swaps two. Two names of one file stay as they are. A whiteout
    /// that is left is not looked up: nobody is told of it.
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<()> {
        let from_name = Name::to_find(from.1)?;
        let to_name = match mode {
            RenameMode::Exchange => Name::to_find(to.1)?,
            _ => Name::to_make(to.1)?,
        };
        let mut change = self.change()?;
        let mut parents = Parents::find(&change, from.0, to.0)?;
        let node = change.child(from.0, &from_name)?.ok_or(FsError::NotFound)?;
        let target = change.child(to.0, &to_name)?;
        if is_under(&change, to.0, &node)? {
            return Err(FsError::Invalid);
        }
        let (from, to) = (Place::of(from.0, &from_name), Place::of(to.0, &to_name));
        match (mode, target) {
            (RenameMode::NoReplace | RenameMode::WhiteoutNoReplace(_), Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            (_, Some(target)) if target.ino == node.ino => return Ok(()),
            (RenameMode::Exchange, Some(target)) => {
                if is_under(&change, parents.from().ino, &target)? {
                    return Err(FsError::Invalid);
                }
                parents.count(node.inode.kind, target.inode.kind)?;
                place(&mut change, node, to, parents.to().ino);
                place(&mut change, target, from, parents.from().ino);
            }
            (_, target) => {
                let replaced = target.as_ref().map(|target| target.inode.kind);
                match mode {
                    RenameMode::Whiteout(owner) | RenameMode::WhiteoutNoReplace(owner) => {
                        put_whiteout(&mut change, owner, parents.from(), from)?;
                    }
                    _ => change.delete_name(&from),
                }
                if let Some(target) = target {
                    replace(&mut change, &node, target)?;
                }
                parents.count(node.inode.kind, FileType::Regular)?;
                if replaced == Some(FileType::Directory) {
                    add_subdir(parents.to(), -1)?;
                }
                place(&mut change, node, to, parents.to().ino);
            }
        }
        parents.touch(&mut change);
        change.commit()
    }
}

/// The directories that a name leaves and enters: maybe one and the same.
struct Parents {
    from: Node,
    to: Option<Node>,
}

impl Parents {
    fn find(change: &Change<'_>, from: Ino, to: Ino) -> Result<Parents> {
        let other = if to == from { None } else { Some(change.directory(to)?) };
        Ok(Parents { from: change.directory(from)?, to: other })
    }

    fn from(&mut self) -> &mut Node {
        &mut self.from
    }

    fn to(&mut self) -> &mut Node {
        self.to.as_mut().unwrap_or(&mut self.from)
    }

    /// One node goes from the first to the second, another the other way.
    fn count(&mut self, there: FileType, back: FileType) -> Result<()> {
        let moved = |kind| i32::from(kind == FileType::Directory);
        let difference = moved(there) - moved(back);
        add_subdir(self.from(), -difference)?;
        add_subdir(self.to(), difference)
    }

    fn touch(&mut self, change: &mut Change<'_>) {
        touch(change, &mut self.from);
        if let Some(to) = &mut self.to {
            touch(change, to);
        }
    }
}

/// Puts a whiteout in the place of what is about to get another name.
fn put_whiteout(change: &mut Change<'_>, owner: Caller, dir: &Node, place: Place) -> Result<()> {
    let blank = Blank { kind: FileType::CharDevice, perm: 0, body: Body::Device(0) };
    let mut whiteout = new_node(change, owner, Some(dir), blank)?;
    change.put_named(&mut whiteout, place);
    Ok(())
}

/// Removes what a renamed node takes the place of.
fn replace(change: &mut Change<'_>, node: &Node, target: Node) -> Result<()> {
    match (node.inode.kind == FileType::Directory, target.inode.kind == FileType::Directory) {
        (true, false) => Err(FsError::NotADirectory),
        (false, true) => Err(FsError::IsADirectory),
        (false, false) => drop_link(change, target),
        (true, true) => {
            must_be_empty(change, target.ino)?;
            drop_directory(change, target)
        }
    }
}

/// Puts a node that was elsewhere under a name.
fn place(change: &mut Change<'_>, mut node: Node, place: Place, dir: Ino) {
    node.inode.stat.ctime = change.now;
    if let Body::Directory { parent, .. } = &mut node.inode.body {
        *parent = dir;
    }
    change.put_named(&mut node, place.clone());
    change.then(Effect::Moved(node.ino, node.form(), place));
}

/// Whether the directory `dir` is `node` or lies somewhere under it.
fn is_under(change: &Change<'_>, dir: Ino, node: &Node) -> Result<bool> {
    if node.inode.kind != FileType::Directory {
        return Ok(false);
    }
    let mut at = dir;
    for _ in 0..DEPTH_MAX {
        if at == node.ino {
            return Ok(true);
        }
        if at == ROOT {
            return Ok(false);
        }
        at = match change.txn().inode(at)?.map(|inode| inode.body) {
            Some(Body::Directory { parent, .. }) => parent,
            _ => return Err(FsError::damaged(format!("{at}: is a parent, but no directory"))),
        };
    }
    Err(FsError::damaged(format!("{dir}: its parents form a circle")))
}
