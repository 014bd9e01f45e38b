//! Extended attributes. They are kept apart from the node, whatever its form; a flag in the node
//! says that there may be some.
//!
//! There are those of Linux: `user.`, `trusted.` and `security.` are taken as they are (who may use
//! which, and on what, the kernel has checked); in `system.` are the two ACLs, which go together with the
//! mode (`node_acl`). The kernel hands on names in any other as well: there is nothing.

use crate::fs::acl::Acl;
use crate::fs::attr::{Caller, Ino, SetXattr};
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::{FileSystem, Found};
use crate::fs::key;
use crate::fs::node_acl::{Kind, acl_of, is_stored, set_acl};
use crate::fs::records::Records;
use bytes::Bytes;
use kivafs::tree::VALUE_MAX;
use std::ops::ControlFlow;

const XATTR_NAME_MAX: usize = 255;
/// Longest value: 64 KiB, the kernel's limit too.
const XATTR_VALUE_MAX: usize = VALUE_MAX;
/// Longest list of names with their NULs: what listxattr(2) can return.
const XATTR_LIST_MAX: usize = 64 << 10;
/// Only root is told of these.
const TRUSTED: &[u8] = b"trusted.";
const NAMESPACES: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];

impl FileSystem {
    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        let acl = check_name(name)?;
        let (view, node) = match self.find(ino)? {
            Found::Node(view, node) => (view, node),
            // Whoever works in a directory that was removed is to hear that, not that the kernel could not
            // check whether he may.
            Found::Gone(_) if acl.is_some() => return Err(FsError::NoAttribute),
            Found::Gone(_) => return Err(FsError::Stale),
        };
        if let Some(kind) = acl {
            return Ok(acl_of(&view, &node, kind)?.ok_or(FsError::NoAttribute)?.encode().into());
        }
        if !node.inode.has_xattrs {
            return Err(FsError::NoAttribute);
        }
        let value = view.value(&key::xattr(ino, name))?.ok_or(FsError::NoAttribute)?;
        Ok(view.bytes(&[value])?.concat().into())
    }

    /// Sets an extended attribute. `ValueTooBig` beyond 64 KiB; `ListFull` when the list of names
    /// would exceed 64 KiB; `Invalid` for an ACL that is none. An access ACL changes the mode; with
    /// `kill_setgid` setgid falls then.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr, kill_setgid: bool) -> Result<()> {
        let kind = check_name(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(FsError::ValueTooBig);
        }
        let acl = match kind {
            Some(kind) => Some((kind, Acl::decode(value).ok_or(FsError::Invalid)?)),
            None => None,
        };
        let mut change = self.change()?;
        let mut node = change.node(ino)?;
        let key = key::xattr(ino, name);
        let exists = node.inode.has_xattrs && change.txn().value(&key)?.is_some();
        match (how, exists) {
            (SetXattr::Create, true) => return Err(FsError::Exists),
            (SetXattr::Replace, false) => return Err(FsError::NoAttribute),
            _ => {}
        }
        let is_new = !exists && acl.as_ref().is_none_or(|(kind, acl)| is_stored(acl, *kind));
        if is_new && names(change.txn(), ino)?.len() + name.len() + 1 > XATTR_LIST_MAX {
            return Err(FsError::ListFull);
        }
        match &acl {
            Some((kind, acl)) => set_acl(&mut change, &mut node, *kind, acl, kill_setgid)?,
            None => {
                change.txn_mut().put(&key, value.to_vec());
                node.inode.has_xattrs = true;
            }
        }
        node.inode.stat.ctime = change.now;
        change.put_node(&node);
        change.commit()
    }

    /// Names of the extended attributes that the caller may see, each followed by a NUL.
    pub fn listxattr(&self, caller: Caller, ino: Ino) -> Result<Vec<u8>> {
        let (view, node) = self.node(ino)?;
        if !node.inode.has_xattrs {
            return Ok(Vec::new());
        }
        let names = names(&view, ino)?;
        let is_seen = |name: &&[u8]| caller.uid == 0 || !name.starts_with(TRUSTED);
        Ok(names.split_inclusive(|byte| *byte == 0).filter(is_seen).flatten().copied().collect())
    }

    /// Removes an extended attribute. An ACL may be removed where there is none.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let acl = check_name(name)?;
        let mut change = self.change()?;
        let mut node = change.node(ino)?;
        let key = key::xattr(ino, name);
        if !node.inode.has_xattrs || change.txn().value(&key)?.is_none() {
            return if acl.is_some() { Ok(()) } else { Err(FsError::NoAttribute) };
        }
        change.shrinks();
        change.txn_mut().delete(&key);
        node.inode.stat.ctime = change.now;
        change.put_node(&node);
        change.commit()
    }
}

/// Whether that name is an ACL's.
fn check_name(name: &[u8]) -> Result<Option<Kind>> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(FsError::RangeTooSmall);
    }
    let kind = Kind::of_name(name);
    match NAMESPACES.iter().find_map(|namespace| name.strip_prefix(*namespace)) {
        Some(b"") => Err(FsError::Invalid),
        None if kind.is_none() => Err(FsError::NotSupported),
        _ => Ok(kind),
    }
}

fn names(records: &impl Records, ino: Ino) -> Result<Vec<u8>> {
    let mut names = Vec::new();
    records.visit(&key::xattrs(ino), &mut |key, _| {
        names.extend_from_slice(key::name_of(key));
        names.push(0);
        ControlFlow::Continue(())
    })?;
    Ok(names)
}
