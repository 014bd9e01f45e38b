//! Where FUSE ends: what no file system can do by it. Each is tried on a mount of a store and, beside it, on
//! the file system in memory of `kivafs bench mount`, which has nothing in common with it but FUSE.

mod place;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use place::ceiling::{Ceiling, on_both};
use place::{Medium, Place};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn file_in(dir: &Path) -> PathBuf {
    let path = dir.join("file");
    std::fs::write(&path, "content").unwrap();
    path
}

#[test]
fn o_tmpfile_is_not_supported() {
    on_both(|dir, _| {
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(dir);
        assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    });
}

#[test]
fn there_are_no_birth_times() {
    on_both(|dir, _| {
        let path = file_in(dir);
        let mut statx = MaybeUninit::<libc::statx>::zeroed();
        let (flags, mask) = (libc::AT_STATX_FORCE_SYNC, libc::STATX_BASIC_STATS | libc::STATX_BTIME);
        // SAFETY: the path ends with a zero, and the buffer is a statx that is ours.
        let done = unsafe { libc::statx(libc::AT_FDCWD, c_path(&path).as_ptr(), flags, mask, statx.as_mut_ptr()) };
        assert_eq!(Errno::result(done), Ok(0));
        // SAFETY: all of it was zeroed, and the kernel has filled in what it has.
        let statx = unsafe { statx.assume_init() };
        assert_eq!(statx.stx_mask & mask, libc::STATX_BASIC_STATS);
        assert!(path.metadata().unwrap().created().is_err());
    });
}

#[test]
fn ranges_are_not_cloned_by_ioctl() {
    on_both(|dir, _| {
        let source = File::open(file_in(dir)).unwrap();
        let copy = File::create(dir.join("copy")).unwrap();
        // SAFETY: both descriptors are open.
        let done = unsafe { libc::ioctl(copy.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) };
        assert_eq!(Errno::result(done), Err(Errno::EOPNOTSUPP));
    });
}

#[test]
fn files_have_no_handles_for_nfs() {
    const HANDLE_BYTES: usize = 128;
    /// struct file_handle: how much room there is, a type, and the room.
    #[repr(C)]
    struct FileHandle {
        room: libc::c_uint,
        kind: libc::c_int,
        bytes: [u8; HANDLE_BYTES],
    }
    on_both(|dir, _| {
        let (path, mut mount_id): (_, libc::c_int) = (c_path(&file_in(dir)), 0);
        let mut handle = FileHandle { room: HANDLE_BYTES as u32, kind: 0, bytes: [0; HANDLE_BYTES] };
        // SAFETY: the path ends with a zero, and the handle has as much room as it says.
        let done = unsafe {
            let (handle, mount_id) = (&raw mut handle, &raw mut mount_id);
            libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), handle, mount_id, 0)
        };
        assert_eq!(Errno::result(done), Err(Errno::EOPNOTSUPP), "type {}: {:?}", handle.kind, handle.bytes);
    });
}

/// The C library knows no more of FUSE than what holds for anybody.
#[test]
fn link_max_is_what_the_c_library_makes_up() {
    on_both(|dir, _| {
        let path = file_in(dir);
        // SAFETY: the path ends with a zero.
        let link_max = unsafe { libc::pathconf(c_path(&path).as_ptr(), libc::_PC_LINK_MAX) };
        assert_eq!(link_max, 127);
        for number in 0..200 {
            std::fs::hard_link(&path, dir.join(format!("link-{number}"))).unwrap();
        }
        assert_eq!(path.metadata().unwrap().nlink(), 201);
    });
}

/// What is measured beside is a file system: the rest of it is for pjdfstest.
#[test]
fn the_one_in_memory_keeps_what_it_is_told() {
    let place = Place::bare(Medium::File);
    let ceiling = Ceiling::start(place.root().join("ceiling"));
    let dir = ceiling.dir.join("dir");
    std::fs::create_dir(&dir).unwrap();
    let names: Vec<String> = (0..3000).map(|number| format!("name-{number:04}")).collect();
    for name in &names {
        std::fs::write(dir.join(name), name).unwrap();
    }
    // Some go while it is listed: each that stays is there once.
    let mut listed = Vec::new();
    for (at, entry) in std::fs::read_dir(&dir).unwrap().enumerate() {
        listed.push(entry.unwrap().file_name().into_string().unwrap());
        if at == 10 {
            names[2000..].iter().for_each(|name| std::fs::remove_file(dir.join(name)).unwrap());
        }
    }
    listed.retain(|name| names[..2000].contains(name));
    listed.sort();
    assert_eq!(listed, names[..2000]);

    let [first, second] = [dir.join(&names[0]), dir.join(&names[1])];
    let mut open = File::open(&second).unwrap();
    std::fs::rename(&first, &second).unwrap();
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!((content.as_str(), std::fs::read_to_string(&second).unwrap()), ("name-0001", "name-0000".into()));
    let mut sparse = File::create(dir.join("sparse")).unwrap();
    sparse.write_all(b"begin").unwrap();
    sparse.write_all_at(b"end", 3 << 20).unwrap();
    let stat = sparse.metadata().unwrap();
    assert!(stat.len() == (3 << 20) + 3 && stat.blocks() * 512 < 1 << 20, "{stat:?}");
    assert_eq!(std::fs::remove_dir(&dir).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    umount2(&ceiling.dir, MntFlags::empty()).unwrap_err();
    drop((open, sparse));
    let mut ceiling = ceiling;
    umount2(&ceiling.dir, MntFlags::empty()).unwrap();
    assert!(ceiling.process.wait().unwrap().success());
}
