//! Extended attributes. They are kept apart from the node, whatever its form; a flag in the node
//! says that there may be some.
//!
//! All namespaces but `system.` are taken as they are: who may use which, and on what, the kernel
//! has checked. `system.` holds ACLs, which would have to take part in permission checks.

use crate::fs::attr::{Ino, SetXattr};
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::FileSystem;
use crate::fs::key;
use crate::fs::records::Records;
use bytes::Bytes;
use kivafs::tree::VALUE_MAX;
use std::ops::ControlFlow;

const XATTR_NAME_MAX: usize = 255;
/// Longest value: 64 KiB, the kernel's limit too.
const XATTR_VALUE_MAX: usize = VALUE_MAX;
/// Longest list of names with their NULs: what listxattr(2) can return.
const XATTR_LIST_MAX: usize = 64 << 10;
const SYSTEM: &[u8] = b"system.";

impl FileSystem {
    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        check_name(name)?;
        let (view, node) = self.node(ino)?;
        if !node.inode.has_xattrs {
            return Err(FsError::NoAttribute);
        }
        let value = view.value(&key::xattr(ino, name))?.ok_or(FsError::NoAttribute)?;
        Ok(view.bytes(&[value])?.concat().into())
    }

    /// Sets an extended attribute. `ValueTooBig` beyond 64 KiB; `NoSpace` when the list of names
    /// would exceed 64 KiB.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        check_name(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(FsError::ValueTooBig);
        }
        let mut change = self.change()?;
        let mut node = change.node(ino)?;
        let key = key::xattr(ino, name);
        let exists = node.inode.has_xattrs && change.txn().value(&key)?.is_some();
        match (how, exists) {
            (SetXattr::Create, true) => return Err(FsError::Exists),
            (SetXattr::Replace, false) => return Err(FsError::NoAttribute),
            _ => {}
        }
        if !exists && names(change.txn(), ino)?.len() + name.len() + 1 > XATTR_LIST_MAX {
            return Err(FsError::NoSpace);
        }
        change.txn_mut().put(&key, value.to_vec());
        node.inode.has_xattrs = true;
        node.inode.stat.ctime = change.now;
        change.put_node(&node);
        change.commit()
    }

    /// Names of the extended attributes, each followed by a NUL.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let (view, node) = self.node(ino)?;
        if node.inode.has_xattrs { names(&view, ino) } else { Ok(Vec::new()) }
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let mut change = self.change()?;
        let mut node = change.node(ino)?;
        let key = key::xattr(ino, name);
        if !node.inode.has_xattrs || change.txn().value(&key)?.is_none() {
            return Err(FsError::NoAttribute);
        }
        change.shrinks();
        change.txn_mut().delete(&key);
        node.inode.stat.ctime = change.now;
        change.put_node(&node);
        change.commit()
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(FsError::RangeTooSmall);
    }
    if name.starts_with(SYSTEM) { Err(FsError::NotSupported) } else { Ok(()) }
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
