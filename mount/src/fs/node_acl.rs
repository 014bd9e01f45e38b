//! ACLs of nodes: set, changed by chmod, inherited, handed on.
//!
//! They are stored as extended attributes, and so cost nothing where there are none: a node without
//! attributes has no ACL. Whether they let somebody do something is the kernel's to tell; what is kept
//! here is that mode and access ACL say the same (F9).

use crate::fs::acl::{ACL_BYTES_MAX, Acl, MODE_BITS};
use crate::fs::attr::{FileType, Ino};
use crate::fs::change::Change;
use crate::fs::error::{FsError, Result};
use crate::fs::key;
use crate::fs::make::PERM_MASK;
use crate::fs::node::Node;
use crate::fs::records::Records;
use crate::fs::setattr::SETGID;

/// Which of a node's two ACLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who may do what with it.
    Access,
    /// Of a directory: what is made in it begins with.
    Default,
}

/// An access ACL's name as an extended attribute.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// Most bytes that an ACL adds to a transaction.
pub(crate) const ACL_COST_MAX: usize = ACL_BYTES_MAX + 64;

impl Kind {
    /// The ACL that an extended attribute of that name is.
    pub(crate) fn of_name(name: &[u8]) -> Option<Kind> {
        [Kind::Access, Kind::Default].into_iter().find(|kind| kind.name() == name)
    }

    fn name(self) -> &'static [u8] {
        match self {
            Kind::Access => ACCESS_ACL,
            Kind::Default => DEFAULT_ACL,
        }
    }

    /// The key that it is stored under.
    pub(crate) fn key(self, ino: Ino) -> Vec<u8> {
        key::xattr(ino, self.name())
    }
}

/// The ACL that is stored with a node.
pub(crate) fn acl_of(records: &impl Records, node: &Node, kind: Kind) -> Result<Option<Acl>> {
    if !node.inode.has_xattrs {
        return Ok(None);
    }
    let Some(value) = records.value(&kind.key(node.ino))? else { return Ok(None) };
    match Acl::decode(&records.bytes(&[value])?.concat()) {
        Some(acl) => Ok(Some(acl)),
        None => Err(FsError::damaged(format!("{}: its ACL makes no sense", node.ino))),
    }
}

/// Whether setting this ACL stores it: what a mode says as well is that.
pub(crate) fn is_stored(acl: &Acl, kind: Kind) -> bool {
    kind == Kind::Default || !acl.is_mode()
}

/// Sets an ACL; the access ACL sets the mode, and clears setgid with `kill_setgid`. The node is still to
/// be put.
pub(crate) fn set_acl(
    change: &mut Change<'_>,
    node: &mut Node,
    kind: Kind,
    acl: &Acl,
    kill_setgid: bool,
) -> Result<()> {
    match (node.inode.kind, kind) {
        (FileType::Symlink, _) => return Err(FsError::NotSupported),
        (FileType::Directory, _) | (_, Kind::Access) => {}
        (_, Kind::Default) => return Err(FsError::Denied),
    }
    if kind == Kind::Access {
        let perm = &mut node.inode.stat.perm;
        *perm = *perm & !MODE_BITS | acl.mode();
        if kill_setgid {
            *perm &= !SETGID;
        }
    }
    put_acl(change, node, kind, acl);
    Ok(())
}

/// Gives a node the nine bits of `perm`, and its access ACL, too. The node is still to be put.
pub(crate) fn chmod(change: &mut Change<'_>, node: &mut Node, perm: u32) -> Result<()> {
    let perm = (perm & PERM_MASK) as u16;
    if let Some(mut acl) = acl_of(change.txn(), node, Kind::Access)? {
        acl.chmod(perm);
        put_acl(change, node, Kind::Access, &acl);
    }
    node.inode.stat.perm = perm;
    Ok(())
}

/// What a new node, still to be put, gets from the directory that it is made in: by its default ACL,
/// which the umask then has no part in.
pub(crate) fn inherit(change: &mut Change<'_>, dir: Option<&Node>, node: &mut Node, umask: u32) -> Result<()> {
    if node.inode.kind == FileType::Symlink {
        return Ok(());
    }
    let default = dir.map_or(Ok(None), |dir| acl_of(change.txn(), dir, Kind::Default))?;
    let Some(mut acl) = default else {
        node.inode.stat.perm &= !(umask as u16 & MODE_BITS);
        return Ok(());
    };
    if node.inode.kind == FileType::Directory {
        put_acl(change, node, Kind::Default, &acl);
    }
    acl.chmod(node.inode.stat.perm & acl.mode());
    set_acl(change, node, Kind::Access, &acl, false)
}

/// A new file takes the place of another, and its permissions: mode and access ACL. The new one is still
/// to be put.
pub(crate) fn hand_on(change: &mut Change<'_>, old: &Node, new: &mut Node) -> Result<()> {
    new.inode.stat.perm = old.inode.stat.perm;
    match acl_of(change.txn(), old, Kind::Access)? {
        Some(acl) => put_acl(change, new, Kind::Access, &acl),
        None if new.inode.has_xattrs => change.txn_mut().delete(&Kind::Access.key(new.ino)),
        None => {}
    }
    Ok(())
}

fn put_acl(change: &mut Change<'_>, node: &mut Node, kind: Kind, acl: &Acl) {
    let key = kind.key(node.ino);
    if is_stored(acl, kind) {
        change.txn_mut().put(&key, acl.encode());
        node.inode.has_xattrs = true;
    } else if node.inode.has_xattrs {
        change.txn_mut().delete(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::acl::tests::acl;
    use crate::fs::tests::store;
    use crate::fs::{
        CHANGES_AT_ONCE, Caller, FileSystem, If, IfExists, KeyChange, Name, Outcome, ROOT, SetAttr, SetXattr, WriteAt,
        check, coarse_now,
    };
    use bytes::Bytes;

    const USER: Caller = Caller { uid: 1000, gid: 1000, umask: 0o077 };

    fn file_system() -> FileSystem {
        FileSystem::open(store(), coarse_now).unwrap()
    }

    fn set(fs: &FileSystem, ino: Ino, kind: Kind, acl: &Acl) {
        let bytes = acl.encode();
        fs.store().patiently(|| fs.setxattr(ino, kind.name(), &bytes, SetXattr::Any, false)).unwrap();
    }

    fn get(fs: &FileSystem, ino: Ino, kind: Kind) -> Option<Acl> {
        match fs.store().patiently(|| fs.getxattr(ino, kind.name())) {
            Ok(bytes) => Some(Acl::decode(&bytes).unwrap()),
            Err(FsError::NoAttribute) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn perm(fs: &FileSystem, ino: Ino) -> u16 {
        fs.getattr(ino).unwrap().perm
    }

    fn create(fs: &FileSystem, dir: Ino, name: &[u8], mode: u32) -> Ino {
        fs.store().patiently(|| fs.create(USER, dir, name, mode, IfExists::Fail)).unwrap().ino
    }

    fn whole(fs: &FileSystem) {
        assert_eq!(check(fs.store()).unwrap(), Vec::<String>::new());
    }

    /// A default ACL that lets user 5 write.
    fn sharing() -> Acl {
        acl(7, &[(5, 6)], 5, &[], Some(7), 0)
    }

    #[test]
    fn an_access_acl_and_the_mode_say_the_same() {
        let fs = file_system();
        let file = create(&fs, ROOT, b"f", 0o6644);
        assert_eq!(perm(&fs, file), 0o6600, "the umask takes from the nine bits");
        set(&fs, file, Kind::Access, &acl(7, &[(5, 6)], 1, &[], Some(4), 0));
        assert_eq!(perm(&fs, file), 0o6740);
        let chmod = SetAttr { mode: Some(0o4612), ..SetAttr::default() };
        assert_eq!(fs.setattr(USER, file, &chmod).unwrap().perm, 0o4612);
        assert_eq!(get(&fs, file, Kind::Access), Some(acl(6, &[(5, 6)], 1, &[], Some(1), 2)));
        whole(&fs);
        // Three entries are a mode.
        set(&fs, file, Kind::Access, &acl(7, &[], 5, &[], None, 4));
        assert_eq!((perm(&fs, file), get(&fs, file, Kind::Access)), (0o4754, None));
        assert_eq!(fs.listxattr(USER, file).unwrap(), b"");
        // Without its ACL a file keeps its mode.
        set(&fs, file, Kind::Access, &acl(7, &[(5, 6)], 1, &[], Some(4), 0));
        fs.removexattr(file, ACCESS_ACL).unwrap();
        assert_eq!((perm(&fs, file), get(&fs, file, Kind::Access)), (0o4740, None));
        fs.removexattr(file, ACCESS_ACL).unwrap();
        whole(&fs);
    }

    #[test]
    fn setgid_falls_with_an_access_acl_if_it_is_to() {
        let fs = file_system();
        let dir = fs.mkdir(USER, ROOT, b"d", 0o2770).unwrap().ino;
        let value = sharing().encode();
        fs.setxattr(dir, DEFAULT_ACL, &value, SetXattr::Any, true).unwrap();
        assert_eq!(perm(&fs, dir), 0o2700);
        fs.setxattr(dir, ACCESS_ACL, &value, SetXattr::Any, true).unwrap();
        assert_eq!(perm(&fs, dir), 0o770);
    }

    #[test]
    fn what_is_none_is_refused() {
        let fs = file_system();
        let file = create(&fs, ROOT, b"f", 0o644);
        let link = fs.symlink(USER, ROOT, b"l", b"f").unwrap().ino;
        let set = |ino, name: &[u8], value: &[u8]| fs.setxattr(ino, name, value, SetXattr::Any, false);
        let value = sharing().encode();
        assert!(matches!(set(file, ACCESS_ACL, &value[1..]), Err(FsError::Invalid)));
        assert!(matches!(set(file, ACCESS_ACL, b""), Err(FsError::Invalid)));
        assert!(matches!(set(file, DEFAULT_ACL, &value), Err(FsError::Denied)));
        assert!(matches!(set(link, ACCESS_ACL, &value), Err(FsError::NotSupported)));
        assert!(matches!(set(file, b"system.posix_acl", &value), Err(FsError::NotSupported)));
        whole(&fs);
    }

    #[test]
    fn what_is_made_inherits() {
        let fs = file_system();
        let dir = fs.mkdir(USER, ROOT, b"d", 0o755).unwrap().ino;
        set(&fs, dir, Kind::Default, &sharing());
        let file = create(&fs, dir, b"f", 0o666);
        assert_eq!(perm(&fs, file), 0o660, "the umask has no part in it");
        assert_eq!(get(&fs, file, Kind::Access), Some(acl(6, &[(5, 6)], 5, &[], Some(6), 0)));
        assert_eq!(get(&fs, file, Kind::Default), None);
        let below = fs.mkdir(USER, dir, b"below", 0o1700).unwrap().ino;
        assert_eq!(perm(&fs, below), 0o1700);
        assert_eq!(get(&fs, below, Kind::Access), Some(acl(7, &[(5, 6)], 5, &[], Some(0), 0)));
        assert_eq!(get(&fs, below, Kind::Default), Some(sharing()));
        let fifo = fs.mknod(USER, below, b"fifo", libc::S_IFIFO | 0o777, 0).unwrap().ino;
        assert_eq!(get(&fs, fifo, Kind::Access), Some(sharing()));
        let link = fs.symlink(USER, below, b"link", b"f").unwrap().ino;
        assert_eq!((perm(&fs, link), get(&fs, link, Kind::Access)), (0o777, None));
        // Three entries: a mode is inherited, and nothing is stored with files.
        set(&fs, below, Kind::Default, &acl(7, &[], 5, &[], None, 1));
        let plain = create(&fs, below, b"plain", 0o666);
        assert_eq!((perm(&fs, plain), get(&fs, plain, Kind::Access)), (0o640, None));
        whole(&fs);
    }

    /// It has a record of its own from then on; attributes stay where they are.
    #[test]
    fn an_acl_outlives_growth_links_and_renames() {
        let fs = file_system();
        let file = create(&fs, ROOT, b"f", 0o644);
        set(&fs, file, Kind::Access, &sharing());
        fs.store().patiently(|| fs.write(file, WriteAt::End, &Bytes::from(vec![1; 5000]), false)).unwrap();
        fs.link(file, ROOT, b"g").unwrap();
        fs.rename((ROOT, b"f"), (ROOT, b"h"), crate::fs::RenameMode::Replace).unwrap();
        assert_eq!((perm(&fs, file), get(&fs, file, Kind::Access)), (0o770, Some(sharing())));
        whole(&fs);
    }

    #[test]
    fn put_inherits_or_hands_on() {
        let fs = file_system();
        set(&fs, ROOT, Kind::Default, &sharing());
        let inherited = acl(6, &[(5, 6)], 5, &[], Some(6), 0);
        for (name, length) in [("small", 10), ("large", 70_000)] {
            let put = |content: u8| {
                fs.put_path(USER, name.as_bytes(), &mut &vec![content; length][..]).unwrap();
                while fs.store().patiently(|| fs.deferred_step()).unwrap() {}
                fs.store().patiently(|| fs.lookup(ROOT, name.as_bytes())).unwrap().ino
            };
            let first = put(1);
            assert_eq!((perm(&fs, first), get(&fs, first, Kind::Access)), (0o660, Some(inherited.clone())));
            let own = acl(6, &[(7, 4)], 0, &[], Some(4), 0);
            set(&fs, first, Kind::Access, &own);
            let second = put(2);
            assert_eq!((perm(&fs, second), get(&fs, second, Kind::Access)), (0o640, Some(own)));
            set(&fs, second, Kind::Access, &acl(6, &[], 0, &[], None, 0));
            let third = put(3);
            assert_eq!((perm(&fs, third), get(&fs, third, Kind::Access)), (0o600, None));
        }
        whole(&fs);
    }

    fn key(number: usize, value: Option<&'static [u8]>) -> KeyChange {
        let key = Name::from_raw(format!("{number}").as_bytes()).unwrap();
        KeyChange { key, only: If::Always, value: value.map(Bytes::from_static) }
    }

    /// What a transaction has put is not found by its scans.
    #[test]
    fn a_key_that_is_made_and_deleted_at_once_leaves_no_acl() {
        let fs = file_system();
        set(&fs, ROOT, Kind::Default, &sharing());
        let changed = fs.change_keys(&[key(1, Some(b"v")), key(1, None), key(2, Some(b"w"))]).unwrap();
        assert_eq!(changed.outcomes, [Outcome::Done; 3]);
        let second = fs.store().patiently(|| fs.lookup(ROOT, b"2")).unwrap().ino;
        assert_eq!((perm(&fs, second), get(&fs, second, Kind::Access).is_some()), (0o660, true));
        whole(&fs);
    }

    #[test]
    fn many_keys_at_once_inherit_the_longest_acl() {
        let fs = file_system();
        let users: Vec<(u32, u16)> = (0..500).map(|id| (id, 7)).collect();
        set(&fs, ROOT, Kind::Default, &acl(7, &users, 5, &[], Some(7), 0));
        let changes: Vec<KeyChange> = (0..2000).map(|number| key(number, Some(b""))).collect();
        let mut made = 0;
        while made < changes.len() {
            let some = fs.store().patiently(|| fs.change_keys(&changes[made..])).unwrap().outcomes.len();
            assert!(some >= CHANGES_AT_ONCE.min(changes.len() - made));
            made += some;
        }
        whole(&fs);
    }

    #[test]
    fn a_directory_that_is_gone_has_no_acl() {
        let fs = file_system();
        let dir = fs.mkdir(USER, ROOT, b"d", 0o750).unwrap().ino;
        set(&fs, dir, Kind::Access, &sharing());
        fs.rmdir(ROOT, b"d").unwrap();
        assert_eq!(get(&fs, dir, Kind::Access), None);
        assert!(matches!(fs.getxattr(dir, b"user.a"), Err(FsError::Stale)));
    }
}
