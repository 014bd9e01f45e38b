//! The kinds of requests, and their names.

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lookup,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Unlink,
    Rmdir,
    Symlink,
    Rename,
    Link,
    Open,
    Create,
    Read,
    Write,
    Release,
    Fsync,
    Opendir,
    Readdir,
    Readdirplus,
    Releasedir,
    Fsyncdir,
    Statfs,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Fallocate,
    Lseek,
    CopyFileRange,
}

/// How many there are.
pub const KINDS: usize = 30;

/// All of them, in order, with their names.
const ALL: [(Kind, &str); KINDS] = [
    (Kind::Lookup, "lookup"),
    (Kind::Getattr, "getattr"),
    (Kind::Setattr, "setattr"),
    (Kind::Readlink, "readlink"),
    (Kind::Mknod, "mknod"),
    (Kind::Mkdir, "mkdir"),
    (Kind::Unlink, "unlink"),
    (Kind::Rmdir, "rmdir"),
    (Kind::Symlink, "symlink"),
    (Kind::Rename, "rename"),
    (Kind::Link, "link"),
    (Kind::Open, "open"),
    (Kind::Create, "create"),
    (Kind::Read, "read"),
    (Kind::Write, "write"),
    (Kind::Release, "release"),
    (Kind::Fsync, "fsync"),
    (Kind::Opendir, "opendir"),
    (Kind::Readdir, "readdir"),
    (Kind::Readdirplus, "readdirplus"),
    (Kind::Releasedir, "releasedir"),
    (Kind::Fsyncdir, "fsyncdir"),
    (Kind::Statfs, "statfs"),
    (Kind::Setxattr, "setxattr"),
    (Kind::Getxattr, "getxattr"),
    (Kind::Listxattr, "listxattr"),
    (Kind::Removexattr, "removexattr"),
    (Kind::Fallocate, "fallocate"),
    (Kind::Lseek, "lseek"),
    (Kind::CopyFileRange, "copy_file_range"),
];

impl Kind {
    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Kind> {
        ALL.iter().map(|(kind, _)| *kind)
    }

    /// What people and programs call it.
    pub fn name(self) -> &'static str {
        ALL[self as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place() {
        for (at, (kind, _)) in ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
        }
        assert_eq!(Kind::CopyFileRange.name(), "copy_file_range");
    }
}
