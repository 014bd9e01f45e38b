//! What is not there says so, as on other file systems without it.

use crate::place::{Medium, Place, on_each_medium};
use crate::{ends_whole, open};
use nix::errno::Errno;
use nix::libc;
use std::os::fd::AsRawFd;
use std::process::Command;

on_each_medium!(flags_and_maps_of_inodes_are_not_there, chattr_and_lsattr_say_so);

fn flags_and_maps_of_inodes_are_not_there(medium: Medium) {
    const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
    const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;
    const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;
    const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
    const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
    const NONE_OF_ANY: libc::c_ulong = 0x5401;
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let file = open(&place.dir.join("file"));
    let dir = std::fs::File::open(&place.dir).unwrap();
    for descriptor in [file.as_raw_fd(), dir.as_raw_fd()] {
        for (request, errno) in [
            (FS_IOC_GETFLAGS, Errno::ENOTTY),
            (FS_IOC_SETFLAGS, Errno::ENOTTY),
            (FS_IOC_GETVERSION, Errno::ENOTTY),
            (FS_IOC_FSGETXATTR, Errno::ENOTTY),
            (FS_IOC_FIEMAP, Errno::EOPNOTSUPP),
            (NONE_OF_ANY, Errno::ENOTTY),
        ] {
            let mut room = [0u8; 256];
            // SAFETY: none of these requests reads or writes more than the room.
            let done = unsafe { libc::ioctl(descriptor, request, room.as_mut_ptr()) };
            let not_for_directories = request == FS_IOC_FIEMAP && descriptor == dir.as_raw_fd();
            let errno = if not_for_directories { Errno::last() } else { errno };
            assert_eq!(Errno::result(done), Err(errno), "{request:x}");
        }
    }
    drop((file, dir));
    ends_whole(&place);
}

fn chattr_and_lsattr_say_so(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("file");
    std::fs::write(&path, "content").unwrap();
    for (program, word) in [("chattr", "+i"), ("chattr", "+a"), ("lsattr", "-d")] {
        let said = Command::new(program).arg(word).arg(&path).output().unwrap();
        let errors = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && !errors.is_empty(), "{program} {word}: {errors}");
    }
    std::fs::write(&path, "more").unwrap();
    ends_whole(&place);
}
