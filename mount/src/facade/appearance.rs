//! What files look like where the mount was told whose they are to be: `uid=`, `gid=`, `umask=`.
//!
//! Only what is shown changes, and with it what the kernel permits; owners, modes and ACLs are stored as
//! they are given. So the same store shows them elsewhere.

use crate::fs::{ACCESS_ACL, Attr, FileType, SetAttr, masked_acl};
use bytes::Bytes;
use fuser::Errno;

/// What is shown instead of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Appearance {
    /// The owner of everything.
    pub uid: Option<u32>,
    /// The group of everything.
    pub gid: Option<u32>,
    /// Permissions that nothing has. At most 0777.
    pub umask: u16,
}

impl Appearance {
    /// What stat(2) is to tell.
    pub fn of(self, attr: &Attr) -> Attr {
        let umask = if attr.kind == FileType::Symlink { 0 } else { self.umask };
        Attr { uid: self.uid.unwrap_or(attr.uid), gid: self.gid.unwrap_or(attr.gid), perm: attr.perm & !umask, ..*attr }
    }

    /// An extended attribute's value. Of an access ACL the kernel goes by the entries, not by the mode.
    pub fn of_xattr(self, name: &[u8], value: Bytes) -> Bytes {
        if self.umask != 0 && name == ACCESS_ACL { masked_acl(&value, self.umask).into() } else { value }
    }

    /// What to store of a change: whose something is can only be set to what it is said to be, which
    /// changes nothing.
    pub fn stored(self, wanted: SetAttr) -> Result<SetAttr, Errno> {
        let id = |shown: Option<u32>, wanted: Option<u32>| match (shown, wanted) {
            (Some(shown), Some(wanted)) if shown != wanted => Err(Errno::EPERM),
            (Some(_), _) => Ok(None),
            (None, wanted) => Ok(wanted),
        };
        Ok(SetAttr { uid: id(self.uid, wanted.uid)?, gid: id(self.gid, wanted.gid)?, ..wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_set_to_what_it_is_shown_as_or_not_at_all() {
        let look = Appearance { uid: Some(5), gid: None, umask: 0 };
        let chown = |uid, gid| look.stored(SetAttr { uid, gid, mode: Some(0o600), ..SetAttr::default() });
        let stored = chown(Some(5), Some(6)).unwrap();
        assert_eq!((stored.uid, stored.gid, stored.mode), (None, Some(6), Some(0o600)));
        assert_eq!(chown(Some(4), None).unwrap_err(), Errno::EPERM);
        assert_eq!(chown(None, None).unwrap().uid, None);
    }
}
