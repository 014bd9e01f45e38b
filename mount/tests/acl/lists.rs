//! ACLs, as the kernel takes and gives them.

pub const ACCESS: &str = "system.posix_acl_access";
pub const DEFAULT: &str = "system.posix_acl_default";

pub const OWNER: u16 = 0x01;
pub const USER: u16 = 0x02;
pub const GROUP: u16 = 0x04;
pub const A_GROUP: u16 = 0x08;
pub const MASK: u16 = 0x10;
pub const OTHERS: u16 = 0x20;

/// The bytes of an ACL of (tag, permissions, number).
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, perm, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&perm.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// One that names a user.
pub fn for_user(owner: u16, uid: u32, perm: u16, group: u16, mask: u16, others: u16) -> Vec<u8> {
    let none = u32::MAX;
    acl(&[(OWNER, owner, none), (USER, perm, uid), (GROUP, group, none), (MASK, mask, none), (OTHERS, others, none)])
}
