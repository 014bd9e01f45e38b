//! The disks themselves: a real file and memory keep the same contract; locks; what is cached.

mod support;

use kivafs::backend::{Disk, FileDisk, Hold, MemoryDisk};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use support::random::{Random, for_each_seed};
use support::scratch::Scratch;

/// Taken by tests that fork and by those that look at locks: a child has a copy of every
/// descriptor of the moment, so a lock dropped here would live on in the child of another test.
static FORKS_AND_LOCKS: Mutex<()> = Mutex::new(());

fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.len().unwrap() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn file_and_memory_behave_alike() {
    for_each_seed(8, |seed| {
        let scratch = Scratch::new();
        let file = FileDisk::create(&scratch.path("disk")).unwrap();
        let memory = MemoryDisk::default();
        let mut random = Random::new(seed);
        for step in 0..300 {
            let (offset, length) = (random.within(0..100_000) as u64, random.within(0..20_000) as u64);
            let act: &dyn Fn(&dyn Disk) -> std::io::Result<()> = match random.within(0..8) {
                0..4 => {
                    let bytes = random.bytes(length as usize);
                    &move |disk: &dyn Disk| disk.write_at(offset, &bytes)
                }
                4 => &|disk| disk.allocate(offset, length),
                5 => &|disk| disk.punch(offset, length),
                6 => &|disk| disk.sync(),
                _ => &|disk| disk.read_at(offset, &mut vec![0; length as usize]),
            };
            let kinds = [&file as &dyn Disk, &memory].map(|disk| act(disk).map_err(|error| error.kind()));
            assert_eq!(kinds[0], kinds[1], "step {step}");
            assert_eq!(file.len().unwrap(), memory.len().unwrap(), "step {step}");
        }
        assert!(content(&file) == memory.to_bytes());
    });
}

#[test]
fn reading_past_the_end_is_an_error() {
    let scratch = Scratch::new();
    for disk in [&FileDisk::create(&scratch.path("disk")).unwrap() as &dyn Disk, &MemoryDisk::default()] {
        disk.write_at(0, b"0123456789").unwrap();
        disk.read_at(10, &mut []).unwrap();
        for offset in [1, 10, 11, 1 << 40] {
            assert_eq!(disk.read_at(offset, &mut [0; 10]).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{offset}");
        }
    }
}

#[test]
fn space_is_taken_by_allocating_and_given_back_by_punching() {
    let scratch = Scratch::new();
    let file = FileDisk::create(&scratch.path("disk")).unwrap();
    let memory = MemoryDisk::default();
    memory.set_capacity(2 << 20);
    let occupied = || (file.occupied_bytes().unwrap(), memory.occupied_bytes());
    for disk in [&file as &dyn Disk, &memory] {
        disk.allocate(0, 1 << 20).unwrap();
        assert_eq!(content(disk), vec![0; 1 << 20]);
    }
    let (in_file, in_memory) = occupied();
    assert!(in_file >= 1 << 20, "{in_file}");
    assert_eq!(in_memory, 1 << 20);
    for disk in [&file as &dyn Disk, &memory] {
        disk.write_at(0, &vec![7; 1 << 20]).unwrap();
        disk.punch(4096, (1 << 20) - 8192).unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.len().unwrap(), 1 << 20, "the length stays");
        let bytes = content(disk);
        assert!(bytes[..4096].iter().chain(&bytes[(1 << 20) - 4096..]).all(|byte| *byte == 7));
        assert!(bytes[4096..(1 << 20) - 4096].iter().all(|byte| *byte == 0));
    }
    let (in_file, in_memory) = occupied();
    assert!(in_file < 64 << 10, "{in_file} bytes still occupied");
    assert_eq!(in_memory, 8192);
    assert_eq!(memory.free_space().unwrap(), (2 << 20) - 8192);
    assert!(file.free_space().unwrap() > 0);
}

#[test]
fn a_full_memory_disk_refuses_and_changes_nothing() {
    let disk = MemoryDisk::default();
    disk.set_capacity(16 << 10);
    disk.allocate(0, 16 << 10).unwrap();
    disk.write_at(0, &[1; 16 << 10]).unwrap();
    let before = disk.to_bytes();
    assert_eq!(disk.allocate(8 << 10, 16 << 10).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.write_at(16 << 10, b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.to_bytes(), before);
    disk.punch(0, 8 << 10).unwrap();
    disk.allocate(16 << 10, 8 << 10).unwrap();
    assert_eq!(disk.write_at(0, b"x").unwrap_err().kind(), ErrorKind::StorageFull, "its space went elsewhere");
    disk.set_capacity(20 << 10);
    disk.write_at(0, b"x").unwrap();
}

/// Runs out of file size instead of out of disk, which needs no file system of its own: a child
/// process, since the limit is the process's.
#[test]
fn a_file_that_cannot_grow_is_full_and_keeps_its_length() {
    let _guard = FORKS_AND_LOCKS.lock();
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    let disk = FileDisk::create(&path).unwrap();
    disk.write_at(0, b"kept").unwrap();
    let verdict = in_child(|| {
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        // SAFETY: plain system calls of the child, with pointers to locals.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
        }
        let full = |outcome: std::io::Result<()>| outcome.is_err_and(|error| error.kind() == ErrorKind::StorageFull);
        full(disk.allocate(0, 2 << 20)) && full(disk.write_at(2 << 20, b"x")) && disk.len().is_ok_and(|len| len == 4)
    });
    assert!(verdict.finish());
    assert_eq!(content(&disk), b"kept");
}

#[test]
fn a_lock_keeps_others_out_as_its_kind_says() {
    let _guard = FORKS_AND_LOCKS.lock();
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    let kind = |hold| FileDisk::open(&path, hold).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(kind(Hold::Shared), Err(ErrorKind::NotFound));

    let creator = FileDisk::create(&path).unwrap();
    assert_eq!(FileDisk::create(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(kind(Hold::Exclusive), Err(ErrorKind::WouldBlock), "its creator holds it");
    assert_eq!(kind(Hold::Shared), Err(ErrorKind::WouldBlock));
    let onlooker = FileDisk::open(&path, Hold::None).unwrap();
    assert!(onlooker.is_held_by_other().unwrap());
    assert!(!creator.is_held_by_other().unwrap(), "held by itself only");
    drop(creator);
    assert!(!onlooker.is_held_by_other().unwrap());

    let readers = [Hold::Shared, Hold::Shared].map(|hold| FileDisk::open(&path, hold).unwrap());
    assert_eq!(kind(Hold::Exclusive), Err(ErrorKind::WouldBlock), "readers hold it");
    assert!(!onlooker.is_held_by_other().unwrap(), "readers are no writers");
    drop(readers);
    let writer = FileDisk::open(&path, Hold::Exclusive).unwrap();
    assert_eq!(kind(Hold::Exclusive), Err(ErrorKind::WouldBlock));
    // Opening and closing the file again in this process must not lose the lock.
    drop(FileDisk::open(&path, Hold::None).unwrap());
    assert_eq!(kind(Hold::Shared), Err(ErrorKind::WouldBlock));
    drop(writer);
    assert_eq!(kind(Hold::Exclusive), Ok(()));
}

#[test]
fn a_lock_dies_with_its_process() {
    let _guard = FORKS_AND_LOCKS.lock();
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    drop(FileDisk::create(&path).unwrap());
    let (mut ready, say_ready) = std::io::pipe().unwrap();
    let holder = in_child(|| {
        let held = FileDisk::open(&path, Hold::Exclusive);
        let said = (&say_ready).write_all(&[u8::from(held.is_ok())]).is_ok();
        // SAFETY: waits for a signal; SIGKILL comes.
        unsafe { libc::pause() };
        said
    });
    drop(say_ready);
    let mut answer = [0];
    ready.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [1], "the child got the lock");
    assert_eq!(FileDisk::open(&path, Hold::Exclusive).unwrap_err().kind(), ErrorKind::WouldBlock);
    holder.kill();
    FileDisk::open(&path, Hold::Exclusive).unwrap();
}

#[test]
fn a_program_we_start_does_not_keep_the_lock() {
    let _guard = FORKS_AND_LOCKS.lock();
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    let disk = FileDisk::create(&path).unwrap();
    let mut program = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    drop(disk);
    let opened = FileDisk::open(&path, Hold::Exclusive);
    drop(program.stdin.take());
    program.wait().unwrap();
    opened.unwrap();
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: `name` is a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    for hold in [Hold::Exclusive, Hold::Shared, Hold::None] {
        assert_eq!(FileDisk::open(&scratch.path(""), hold).unwrap_err().kind(), ErrorKind::IsADirectory, "{hold:?}");
        for path in [Path::new("/dev/null"), &fifo] {
            let error = FileDisk::open(path, hold).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{hold:?} {error}");
            assert!(error.to_string().contains("not a regular file"));
        }
    }
}

#[test]
fn names_can_be_made_durable_wherever_they_are() {
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    drop(FileDisk::create(&path).unwrap());
    FileDisk::sync_name(&path).unwrap();
    FileDisk::sync_name(Path::new("name-in-the-working-directory")).unwrap();
    assert_eq!(FileDisk::sync_name(&scratch.path("no/where")).unwrap_err().kind(), ErrorKind::NotFound);
}

/// How many pages of the file are in the page cache.
fn cached_pages(path: &Path) -> usize {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    let mut residency = vec![0_u8; length.div_ceil(4096)];
    // SAFETY: maps a file that stays as it is, for reading, and asks about exactly this mapping;
    // `residency` has a byte for each of its pages.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(start, libc::MAP_FAILED);
        assert_eq!(libc::mincore(start, length, residency.as_mut_ptr()), 0);
        assert_eq!(libc::munmap(start, length), 0);
    }
    residency.iter().filter(|page| **page & 1 != 0).count()
}

/// R4: what a new writer reads again is what the disk holds, not what an earlier process left in memory.
#[test]
fn what_is_to_be_read_again_leaves_the_page_cache() {
    let _guard = FORKS_AND_LOCKS.lock();
    let scratch = Scratch::new();
    let path = scratch.path("disk");
    let disk = FileDisk::create(&path).unwrap();
    let bytes = Random::new(1).bytes(8 << 20);
    disk.write_at(0, &bytes).unwrap();
    disk.write_at(FAR, &bytes).unwrap();
    drop(disk);
    let pages = bytes.len() / 4096;
    assert_eq!(cached_pages(&path), 2 * pages, "written, not synced");
    for hold in [Hold::None, Hold::Shared] {
        FileDisk::open(&path, hold).unwrap().reread(0, 2 * FAR).unwrap();
        assert_eq!(cached_pages(&path), 2 * pages, "{hold:?}: only a writer needs it");
    }
    let disk = FileDisk::open(&path, Hold::Exclusive).unwrap();
    // Its ends may lie within what the kernel drops as a whole or not at all.
    disk.reread(4096, 12_288).unwrap();
    assert_eq!(cached_pages(&path), pages, "dirty ones were written and dropped, others are there");
    disk.reread(FAR + 4096, 12_288).unwrap();
    assert_eq!(cached_pages(&path), 0);
    let mut read = vec![0; bytes.len()];
    disk.read_at(0, &mut read).unwrap();
    assert!(read == bytes);
    assert!(cached_pages(&path) > 0, "reading caches again");
    drop(disk);
    FileDisk::open(&path, Hold::Exclusive).unwrap().reread(0, 2 * FAR).unwrap();
    assert_eq!(cached_pages(&path), 0, "clean ones were dropped");
}

/// As far as this, nothing is dropped along with the file's beginning.
const FAR: u64 = 512 << 20;

/// A child process that runs a closure and exits with its verdict.
struct Child(libc::pid_t);

fn in_child(act: impl FnOnce() -> bool) -> Child {
    // SAFETY: the child calls only `act`, which makes system calls, and leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        // SAFETY: ends the child without running anything of the parent's.
        0 => unsafe { libc::_exit(i32::from(!act())) },
        pid => Child(pid),
    }
}

impl Child {
    fn finish(self) -> bool {
        let mut status = 0;
        // SAFETY: waits for our own child, with a pointer to a local.
        assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    fn kill(self) {
        // SAFETY: our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(self.0, libc::SIGKILL) }, 0);
        assert!(!self.finish(), "killed");
    }
}
