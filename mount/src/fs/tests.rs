//! What random operations on small files do not come across: long files cut and removed in steps,
//! several threads, directories that change while they are read, damage.

use crate::fs::acl::tests::acl;
use crate::fs::records::Records;
use crate::fs::*;
use bytes::Bytes;
use kivafs::backend::{Disk, MemoryDisk};
use kivafs::store::{CreateOptions, Geometry, OpenOptions, Room, Store};
use kivafs::tree::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Shared with the store's tests.
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../../../tests/support/silent_disk.rs"]
pub(crate) mod silent_disk;
pub(crate) use silent_disk::{Silence, SilentDisk};

const USER: Caller = Caller { uid: 1000, gid: 1000, umask: 0 };

/// A small store in memory. Nothing is committed unless a test asks for it.
pub(crate) fn store() -> Arc<Store> {
    store_on(Arc::new(MemoryDisk::default()))
}

pub(crate) fn store_on(disk: Arc<dyn Disk>) -> Arc<Store> {
    let geometry = Geometry { ring_bytes: 3 << 20, ring_at_first: 3 << 20, segment_bytes: 1 << 20, page_bytes: 4096 };
    Store::create_on(disk.clone(), &CreateOptions { geometry: Some(geometry), ..CreateOptions::default() }).unwrap();
    open_on(disk)
}

pub(crate) fn open_on(disk: Arc<dyn Disk>) -> Arc<Store> {
    let options = OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() };
    Arc::new(Store::open_on(disk, &options).unwrap())
}

#[test]
fn an_empty_store_that_is_read_only_has_an_empty_root() {
    let disk = Arc::new(MemoryDisk::default());
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let store = Arc::new(Store::open_on(disk, &options).unwrap());
    let fs = FileSystem::open(store, coarse_now).unwrap();
    assert_eq!(fs.getattr(ROOT).unwrap().nlink, 2);
    assert!(matches!(fs.lookup(ROOT, b"a"), Err(FsError::NotFound)));
    assert!(matches!(fs.mkdir(USER, ROOT, b"a", 0o755), Err(FsError::ReadOnly)));
    let handle = fs.opendir(ROOT).unwrap();
    assert_eq!(list(&fs, handle, 0, 9, true).0, [&b"."[..], b".."]);
    assert!(!fs.deferred_step().unwrap());
    whole(&fs);
}

fn file_system() -> FileSystem {
    FileSystem::open(store(), coarse_now).unwrap()
}

fn reopen(fs: FileSystem) -> FileSystem {
    FileSystem::open(fs.store().clone(), coarse_now).unwrap()
}

/// Does it, also if the store has no room for the moment.
fn done<T>(fs: &FileSystem, operation: impl Fn() -> Result<T>) -> T {
    fs.store().patiently(operation).unwrap()
}

fn create(fs: &FileSystem, name: &[u8]) -> Ino {
    let ino = done(fs, || fs.create(USER, ROOT, name, 0o644, IfExists::Fail)).ino;
    fs.release(ino);
    ino
}

fn write(fs: &FileSystem, ino: Ino, offset: u64, bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    assert_eq!(done(fs, || fs.write(ino, WriteAt::Offset(offset), &bytes, false)), bytes.len());
}

fn read(fs: &FileSystem, ino: Ino) -> Vec<u8> {
    let size = fs.getattr(ino).unwrap().size;
    fs.read(ino, 0, size as usize).unwrap().concat()
}

fn resize(fs: &FileSystem, ino: Ino, size: u64) {
    done(fs, || fs.setattr(USER, ino, &SetAttr { size: Some(size), ..SetAttr::default() }));
}

fn whole(fs: &FileSystem) {
    assert_eq!(check(fs.store()).unwrap(), Vec::<String>::new());
}

fn settle(fs: &FileSystem) {
    while done(fs, || fs.deferred_step()) {
        whole(fs);
    }
    whole(fs);
}

fn pieces(fs: &FileSystem) -> Vec<(u64, Value)> {
    let view = fs.store().view();
    let all = || {
        let mut found = Vec::new();
        view.visit(&key::all_pieces(), &mut |key, value| {
            found.push((key::offset_of(key).unwrap(), value.clone()));
            ControlFlow::Continue(())
        })?;
        Ok::<_, FsError>(found)
    };
    fs.store().patiently(all).unwrap()
}

const STRIDE: u64 = 1000;
const DOTS: u64 = 3000;
const DOT: &[u8] = b"0123456789";

/// A file in 3000 pieces of 10 bytes, one in 1000 bytes.
fn dotted(fs: &FileSystem, name: &[u8]) -> Ino {
    let ino = create(fs, name);
    resize(fs, ino, DOTS * STRIDE);
    for dot in 0..DOTS {
        write(fs, ino, dot * STRIDE, DOT);
    }
    assert_eq!(pieces(fs).len() as u64, DOTS + 1, "one lies across the border of a window");
    ino
}

#[test]
fn a_cut_looks_complete_at_once() {
    let fs = file_system();
    let ino = dotted(&fs, b"f");
    resize(&fs, ino, 5005);
    assert!(pieces(&fs).len() > 1000, "the rest is left for later");
    let attr = fs.getattr(ino).unwrap();
    assert_eq!((attr.size, attr.blocks <= 10), (5005, true));
    assert!(fs.deferred_due());
    whole(&fs);
    let kept = read(&fs, ino);
    settle(&fs);
    assert_eq!(pieces(&fs).len(), 6);
    assert_eq!(read(&fs, ino), kept);
    assert_eq!(fs.getattr(ino).unwrap().blocks, 1);
}

#[test]
fn what_was_cut_off_never_comes_back() {
    let grow: [fn(&FileSystem, Ino); 5] = [
        |fs, ino| resize(fs, ino, DOTS * STRIDE),
        |fs, ino| write(fs, ino, DOTS * STRIDE - 1, b"\0"),
        // Right before a piece that is to be removed, and over one.
        |fs, ino| write(fs, ino, 2_000_000 - 100, &[0; 100]),
        |fs, ino| write(fs, ino, 2_000_005, &[0; 2000]),
        |fs, ino| done(fs, || fs.fallocate(USER, ino, 0, DOTS * STRIDE, Allocate::Reserve)),
    ];
    for grow in grow {
        for crash in [false, true] {
            let mut fs = file_system();
            let ino = dotted(&fs, b"f");
            resize(&fs, ino, 5);
            if crash {
                assert!(done(&fs, || fs.deferred_step()));
                fs = reopen(fs);
                fs.lookup(ROOT, b"f").unwrap();
            }
            grow(&fs, ino);
            whole(&fs);
            let content = read(&fs, ino);
            assert_eq!(content[..5], DOT[..5]);
            assert!(content[5..].iter().all(|byte| *byte == 0), "old bytes show");
            resize(&fs, ino, DOTS * STRIDE);
            whole(&fs);
            assert!(read(&fs, ino)[5..].iter().all(|byte| *byte == 0), "old bytes show later");
            settle(&fs);
            assert!(pieces(&fs).len() <= 2);
        }
    }
}

#[test]
fn long_files_are_removed_in_steps() {
    let fs = file_system();
    let ino = dotted(&fs, b"f");
    done(&fs, || fs.unlink(ROOT, b"f"));
    assert!(matches!(fs.open_file(ino), Err(FsError::Stale)));
    assert_eq!(fs.getattr(ino).unwrap().nlink, 0);
    whole(&fs);
    assert!(done(&fs, || fs.deferred_step()));
    let fs = reopen(fs);
    settle(&fs);
    assert_eq!(pieces(&fs), []);
    assert_eq!(fs.statfs().unwrap().files, 1);
}

#[test]
fn a_removed_file_lives_while_it_is_open() {
    let fs = file_system();
    for (name, content) in [(&b"small"[..], &b"pair"[..]), (b"long", &[7; 5000])] {
        let ino = create(&fs, name);
        write(&fs, ino, 0, content);
        fs.setxattr(ino, b"user.a", b"v", SetXattr::Any, false).unwrap();
        fs.open_file(ino).unwrap();
        done(&fs, || fs.unlink(ROOT, name));
        settle(&fs);
        assert_eq!(read(&fs, ino), content);
        write(&fs, ino, 0, b"x");
        assert_eq!(fs.getattr(ino).unwrap().nlink, 0);
        assert!(matches!(fs.link(ino, ROOT, b"again"), Err(FsError::NotFound)));
        fs.forget(ino, 1);
        fs.release(ino);
        settle(&fs);
        assert!(matches!(fs.getattr(ino), Err(FsError::Stale)));
    }
    assert_eq!((fs.held(), fs.statfs().unwrap().files), (0, 1));
    let ino = create(&fs, b"crash");
    fs.open_file(ino).unwrap();
    done(&fs, || fs.unlink(ROOT, b"crash"));
    let fs = reopen(fs);
    settle(&fs);
    assert_eq!(fs.statfs().unwrap().files, 1);
}

/// As on any other file system: a name was found, and is removed or replaced before the file is opened.
#[test]
fn what_is_removed_before_it_is_opened_may_stay_until_it_is_let_go() {
    let fs = file_system();
    for content in [&b"pair"[..], &[7; 5000]] {
        let inos = [b"gone", b"stay", b"left"].map(|name| create(&fs, name));
        inos.iter().for_each(|ino| write(&fs, *ino, 0, content));
        let [gone, stay, left] = inos;
        done(&fs, || fs.unlink(ROOT, b"gone"));
        assert!(matches!(fs.open_file(gone), Err(FsError::Stale)));
        fs.let_removed_stay(Duration::from_secs(3600));
        done(&fs, || fs.unlink(ROOT, b"stay"));
        done(&fs, || fs.rename((ROOT, b"left"), (ROOT, b"other"), RenameMode::Replace));
        let new = create(&fs, b"new");
        done(&fs, || fs.rename((ROOT, b"new"), (ROOT, b"other"), RenameMode::Replace));
        settle(&fs);
        for ino in [stay, left] {
            fs.open_file(ino).unwrap();
            assert_eq!(read(&fs, ino), content);
            assert_eq!(fs.getattr(ino).unwrap().nlink, 0);
            fs.release(ino);
            settle(&fs);
            assert_eq!(read(&fs, ino), content);
            assert!(fs.forget(ino, 1) && fs.deferred_due());
            settle(&fs);
            assert!(matches!(fs.getattr(ino), Err(FsError::Stale)));
        }
        fs.let_removed_stay(Duration::ZERO);
        done(&fs, || fs.unlink(ROOT, b"other"));
        assert!(fs.forget(gone, 1) && fs.forget(new, 1));
        settle(&fs);
        assert_eq!((fs.held(), fs.statfs().unwrap().files, pieces(&fs).len()), (0, 1, 0));
    }
}

#[test]
fn a_directory_that_is_removed_before_it_is_opened_is_empty() {
    let fs = file_system();
    let ino = done(&fs, || fs.mkdir(USER, ROOT, b"dir", 0o755)).ino;
    done(&fs, || fs.rmdir(ROOT, b"dir"));
    let handle = fs.opendir(ino).unwrap();
    assert_eq!(list(&fs, handle, 0, 9, true).0, [[0; 0]; 0]);
    fs.releasedir(handle);
    assert!(fs.forget(ino, 1));
    whole(&fs);
}

#[test]
fn small_writes_gather_until_they_are_stored() {
    let fs = file_system();
    let (gathered, synced) = (create(&fs, b"gathered"), create(&fs, b"synced"));
    for at in 0..48 {
        write(&fs, gathered, at * 4096, &[at as u8 + 1; 4096]);
    }
    assert_eq!(pieces(&fs).iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), [65536; 3]);
    done(&fs, || fs.unlink(ROOT, b"gathered"));
    for at in 0..16 {
        write(&fs, synced, at * 4096, &[at as u8 + 1; 4096]);
        fs.store().sync().unwrap();
    }
    assert_eq!(pieces(&fs).len(), 16, "what was synced is not written again");
    let lines = create(&fs, b"lines");
    for at in 0..100 {
        write(&fs, lines, at * 100, &[b'l'; 100]);
        fs.store().sync().unwrap();
    }
    assert!(pieces(&fs).len() < 16 + 15, "what fits into a leaf is joined all the same");
    whole(&fs);
}

#[test]
fn whole_units_are_not_copied() {
    let fs = file_system();
    let (from, to) = (create(&fs, b"from"), create(&fs, b"to"));
    let data = Bytes::from(vec![5; 3 * 65536]);
    fs.write(from, WriteAt::Offset(0), &data, false).unwrap();
    assert_eq!(fs.copy_file_range(USER, (from, 0), (to, 65536), u64::MAX).unwrap(), 3 * 65536);
    for (_, value) in pieces(&fs) {
        let Value::Bytes(bytes) = value else { panic!() };
        assert!(data.as_ptr_range().contains(&bytes.as_ptr()) && bytes.len() == 65536);
    }
    assert_eq!(fs.getattr(to).unwrap().blocks, 3 * 128);
    whole(&fs);
}

#[test]
fn offsets_to_the_end_of_the_world() {
    let fs = file_system();
    let ino = create(&fs, b"f");
    let last = i64::MAX as u64 - 1;
    write(&fs, ino, last, b"x");
    assert_eq!(fs.getattr(ino).unwrap().size, i64::MAX as u64);
    assert_eq!(fs.lseek(ino, 0, Seek::Data).unwrap(), i64::MAX as u64 / 65536 * 65536 + 65534);
    let more = Bytes::from_static(b"xy");
    assert!(matches!(fs.write(ino, WriteAt::Offset(last), &more, false), Err(FsError::TooBig)));
    assert!(matches!(fs.write(ino, WriteAt::End, &more, false), Err(FsError::TooBig)));
    let size = SetAttr { size: Some(1 << 63), ..SetAttr::default() };
    assert!(matches!(fs.setattr(USER, ino, &size), Err(FsError::TooBig)));
    whole(&fs);
    resize(&fs, ino, 0);
    settle(&fs);
    assert_eq!(pieces(&fs), []);
}

fn list(fs: &FileSystem, handle: Handle, mut offset: u64, count: usize, plus: bool) -> (Vec<Vec<u8>>, u64) {
    let mut names = Vec::new();
    loop {
        let (before, from) = (names.len(), offset);
        let room = &mut |entry: &DirEntry<'_>| {
            if names.len() == count {
                return false;
            }
            names.push(entry.name.to_vec());
            offset = entry.next;
            true
        };
        fs.readdir(handle, from, plus, room).unwrap();
        if names.len() == before || names.len() == count {
            return (names, offset);
        }
    }
}

#[test]
fn a_directory_is_listed_as_it_was_opened() {
    let fs = file_system();
    for number in 0..5000 {
        create(&fs, format!("f{number:04}").as_bytes());
    }
    let handle = fs.opendir(ROOT).unwrap();
    let (first, offset) = list(&fs, handle, 0, 2002, false);
    assert_eq!((first.len(), offset), (2002, 2002));
    for number in (0..5000).step_by(10) {
        done(&fs, || fs.unlink(ROOT, format!("f{number:04}").as_bytes()));
        create(&fs, format!("f{number:04}new").as_bytes());
    }
    let (as_opened, _) = list(&fs, handle, offset, usize::MAX, false);
    assert_eq!(as_opened.len(), 3000, "as it was");
    let (now, _) = list(&fs, handle, offset, usize::MAX, true);
    assert_eq!(now.len(), 2700, "names that are gone have no attributes");
    for start in [2, 1000, 1026, 1027, 3000, 4999, 5001] {
        let (one, next) = list(&fs, handle, start, 1, false);
        assert_eq!((one, next), (vec![format!("f{:04}", start - 2).into_bytes()], start + 1), "seekdir");
    }
    let (rest, _) = list(&fs, handle, 2002, 1, false);
    assert_eq!(rest, [b"f2000"]);
    fs.directories.let_go();
    let (by_name, _) = list(&fs, handle, 2003, usize::MAX, true);
    let lasting = by_name.iter().filter(|name| name.len() == 5).count();
    assert_eq!((lasting, by_name.len()), (2700 - 1 + 1, 2700 + 300), "by name: what lasts, and what is new");
    let (again, _) = list(&fs, handle, 0, usize::MAX, false);
    assert_eq!(again.len(), 2 + 5000, "rewound: as it is now");
    assert_eq!(again.iter().collect::<BTreeSet<_>>().len(), again.len());
    fs.releasedir(handle);
    assert!(matches!(fs.readdir(handle, 0, false, &mut |_| true), Err(FsError::Stale)));
    let dir = fs.mkdir(USER, ROOT, b"d", 0o755).unwrap().ino;
    let handle = fs.opendir(dir).unwrap();
    fs.rmdir(ROOT, b"d").unwrap();
    assert_eq!(list(&fs, handle, 0, 9, true).0.len(), 0);
    assert!(matches!(fs.mkdir(USER, dir, b"e", 0o755), Err(FsError::NotFound)));
}

#[test]
fn hard_links_have_an_end() {
    let fs = file_system();
    let ino = create(&fs, b"f");
    let mut change = fs.change().unwrap();
    let mut node = change.node(ino).unwrap();
    change.promote(&mut node, true);
    node.inode.links = LINKS_MAX;
    change.put_node(&node);
    change.commit().unwrap();
    assert!(matches!(fs.link(ino, ROOT, b"g"), Err(FsError::TooManyLinks)));
}

/// Renames, reads, writes, opens, removals and lookups of the same files at once: whoever holds a
/// file finds it, wherever it is.
#[test]
fn threads() {
    const ROUNDS: usize = 3000;
    let fs = file_system();
    let other = fs.mkdir(USER, ROOT, b"d", 0o755).unwrap().ino;
    let files: Vec<Ino> = (0..4u8).map(|file| create(&fs, &[b'0' + file])).collect();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let movers: Vec<_> = (0..2usize)
            .map(|mover| {
                let fs = &fs;
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        for file in [2 * mover, 2 * mover + 1] {
                            let name = [b'0' + file as u8];
                            let (here, there) = ((ROOT, &name[..]), (other, &name[..]));
                            done(fs, || fs.rename(here, there, RenameMode::NoReplace));
                            done(fs, || fs.rename(there, here, RenameMode::Replace));
                        }
                    }
                })
            })
            .collect();
        for (number, ino) in files.iter().copied().enumerate() {
            let (fs, ended) = (&fs, &ended);
            scope.spawn(move || {
                let name = [b'0' + number as u8];
                let mut round = 0u64;
                while !ended.load(Ordering::Relaxed) {
                    round += 1;
                    fs.open_file(ino).unwrap();
                    let data = Bytes::from(round.to_string().into_bytes());
                    done(fs, || fs.write(ino, WriteAt::Offset(0), &data, false));
                    assert!(fs.read(ino, 0, 100).unwrap().concat().starts_with(&data));
                    fs.release(ino);
                    for dir in [ROOT, other] {
                        if let Ok(attr) = fs.lookup(dir, &name) {
                            assert_eq!(attr.ino, ino);
                            fs.getattr(ino).unwrap();
                            fs.forget(ino, 1);
                        }
                    }
                }
            });
        }
        let (fs, ended) = (&fs, &ended);
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let make = || fs.create(USER, ROOT, b"short", 0o644, IfExists::Open);
                let made = fs.store().patiently(make).unwrap();
                fs.release(made.ino);
                done(fs, || fs.unlink(ROOT, b"short"));
                fs.forget(made.ino, 1);
                while done(fs, || fs.deferred_step()) {}
            }
        });
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok(found) = fs.lookup(ROOT, b"short") else { continue };
                if fs.open_file(found.ino).is_ok() {
                    fs.getattr(found.ino).unwrap();
                    assert_eq!(fs.read(found.ino, 0, 1).unwrap().len(), 0);
                    fs.release(found.ino);
                }
                fs.forget(found.ino, 1);
            }
        });
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let handle = fs.opendir(ROOT).unwrap();
                let mut held = Vec::new();
                let room = &mut |entry: &DirEntry<'_>| {
                    if entry.next > 2 {
                        held.push(entry.ino);
                    }
                    true
                };
                fs.readdir(handle, 0, true, room).unwrap();
                for ino in held {
                    fs.getattr(ino).unwrap();
                    fs.forget(ino, 1);
                }
                fs.releasedir(handle);
            }
        });
        movers.into_iter().for_each(|mover| mover.join().unwrap());
        ended.store(true, Ordering::Relaxed);
    });
    settle(&fs);
    assert_eq!(fs.held(), 1 + files.len());
}

/// Whatever a record has become: an answer, maybe an error, never a panic.
#[test]
fn damage_is_no_panic() {
    for seed in 0..400u64 {
        let fs = file_system();
        let dir = fs.mkdir(USER, ROOT, b"d", 0o755).unwrap().ino;
        let inos = [ROOT, dir, create(&fs, b"pair"), create(&fs, b"long"), create(&fs, b"cut")];
        write(&fs, inos[2], 0, b"content");
        write(&fs, inos[3], 100, &[3; 70_000]);
        write(&fs, inos[4], 100_000, &[3; 700]);
        fs.setxattr(inos[3], b"user.a", b"v", SetXattr::Any, false).unwrap();
        let acl = acl(7, &[(5, 7)], 5, &[], Some(1), 0).encode();
        fs.setxattr(inos[2], b"system.posix_acl_access", &acl, SetXattr::Any, false).unwrap();
        fs.setxattr(dir, b"system.posix_acl_default", &acl, SetXattr::Any, false).unwrap();
        fs.link(inos[3], dir, b"link").unwrap();
        fs.symlink(USER, dir, b"symlink", &[b't'; 2000]).unwrap();
        fs.open_file(inos[4]).unwrap();
        done(&fs, || fs.unlink(ROOT, b"cut"));
        let mut records = Vec::new();
        let all = key::Range { from: vec![0], to: vec![0xff] };
        let visit = &mut |key: &[u8], value: &Value| {
            records.push((key.to_vec(), value.clone()));
            ControlFlow::Continue(())
        };
        fs.store().view().visit(&all, visit).unwrap();
        let random = |salt: u64| (seed * 2 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (key, Value::Bytes(value)) = &records[random(1) as usize % records.len()] else { panic!() };
        let mut value = value.to_vec();
        let at = random(2) as usize % value.len().max(1);
        match (random(3) % 4, value.get_mut(at)) {
            (0, _) => value.truncate(at),
            (1, _) => value.push(0),
            (2, Some(byte)) => *byte = random(4) as u8,
            (_, Some(byte)) => *byte ^= 1 << (random(4) % 8),
            _ => {}
        }
        let mut txn = fs.store().begin().unwrap();
        txn.put(key, value);
        txn.commit().unwrap();
        let _ = check(fs.store());
        for ino in inos {
            let _ = (fs.getattr(ino), fs.readlink(ino), fs.listxattr(USER, ino), fs.getxattr(ino, b"user.a"));
            let _ = (fs.read(ino, 0, 200_000), fs.lseek(ino, 50, Seek::Data), fs.lseek(ino, 50, Seek::Hole));
            let _ = fs.write(ino, WriteAt::Offset(90_000), &Bytes::from(vec![1; 30_000]), true);
            let _ = fs.copy_file_range(USER, (ino, 0), (inos[3], 300_000), 80_000);
            let _ = fs.fallocate(USER, ino, 10, 70_000, Allocate::ZeroRange);
            let _ = fs.setattr(USER, ino, &SetAttr { size: Some(7), uid: Some(1), ..SetAttr::default() });
            let _ = fs.setattr(USER, ino, &SetAttr { mode: Some(0o751), ..SetAttr::default() });
            let _ = fs.getxattr(ino, b"system.posix_acl_access");
            let _ = fs.setxattr(ino, b"user.b", b"w", SetXattr::Create, false);
            let _ = fs.link(ino, ROOT, b"another");
            if let Ok(handle) = fs.opendir(ino) {
                let _ = fs.readdir(handle, 0, true, &mut |_| true);
                let _ = fs.readdir(handle, 0, false, &mut |_| true);
                fs.releasedir(handle);
            }
        }
        let _ = fs.list_path(b"d");
        let _ = fs.mkdir(USER, dir, b"new", 0o755);
        let _ = fs.rename((ROOT, b"d"), (dir, b"e"), RenameMode::Replace);
        let _ = fs.rename((ROOT, b"pair"), (dir, b"symlink"), RenameMode::Exchange);
        for name in [&b"link"[..], b"symlink", b"pair", b"new"] {
            let _ = (fs.lookup(dir, name), fs.unlink(dir, name), fs.rmdir(dir, name));
        }
        let _ = (fs.unlink(ROOT, b"long"), fs.unlink(ROOT, b"pair"), fs.rmdir(ROOT, b"d"), fs.statfs());
        for _ in 0..100 {
            if !fs.deferred_step().unwrap_or(false) {
                break;
            }
        }
    }
}

/// A change for which the store has no room, and which nothing is missing for otherwise.
fn has_no_room(done: Result<Attr>) -> bool {
    matches!(done, Err(FsError::Miss(miss)) if miss.room() == Some(Room::Change))
}

#[test]
fn a_change_without_room_has_not_happened_and_who_reads_does_not_mind() {
    let disk = Arc::new(SilentDisk::new(Arc::new(MemoryDisk::default())));
    let fs = FileSystem::open(store_on(disk.clone()), coarse_now).unwrap();
    let ino = create(&fs, b"file");
    write(&fs, ino, 0, b"content");
    disk.fall(Silence::CHANGES);
    let name = |number: usize| format!("a name long enough to fill what a commit takes: {number}").into_bytes();
    let make = |name: &[u8]| fs.mknod(USER, ROOT, name, libc::S_IFREG | 0o644, 0);
    let mut made = 0;
    // Before storage is at a commit, more room may come; and a lock that somebody has for long answers the
    // same.
    loop {
        match has_no_room(make(&name(made))) {
            false => made += 1,
            true if disk.waiting() > 0 => break,
            true => std::thread::yield_now(),
        }
    }
    assert!(matches!(fs.lookup(ROOT, &name(made)), Err(FsError::NotFound)));
    assert!(fs.lookup(ROOT, &name(made - 1)).is_ok());
    // What moves or has gone is looked for once more, when nothing is about to change.
    assert!(matches!(fs.getattr(Ino(INO_MAX)), Err(FsError::Stale)));
    assert_eq!(fs.lookup(ROOT, b"file").unwrap().ino, ino);
    assert_eq!(read(&fs, ino), b"content");
    fs.open_file(ino).unwrap();
    let handle = fs.opendir(ROOT).unwrap();
    assert!(list(&fs, handle, 0, 9, true).0.len() > 5);
    fs.statfs().unwrap();
    disk.fall(Silence::NONE);
    done(&fs, || make(&name(made)));
    whole(&fs);
}

#[test]
fn names_of_what_is_held_follow_renames() {
    let fs = file_system();
    let dir = fs.mkdir(USER, ROOT, b"dir", 0o755).unwrap().ino;
    let small = create(&fs, b"small");
    let big = create(&fs, b"big");
    write(&fs, big, 0, &[7; 5000]);
    let known = |ino| fs.name_held(ino).unwrap();
    assert_eq!(fs.oldest_held(2), [dir, small]);
    assert_eq!((known(small), known(big)), (Some((ROOT, b"small".to_vec())), Some((ROOT, b"big".to_vec()))));
    assert_eq!((known(dir), known(Ino(99))), (None, None), "no directories, and nothing that is not held");
    for (ino, name) in [(small, &b"small"[..]), (big, b"big")] {
        fs.rename((ROOT, name), (dir, b"%25"), RenameMode::Replace).unwrap();
        assert_eq!(known(ino), Some((dir, b"%25".to_vec())));
    }
    assert_eq!(known(small), None, "removed");
    fs.open_file(big).unwrap();
    assert_eq!(known(big), None, "open");
    fs.release(big);
    fs.link(big, ROOT, b"linked").unwrap();
    assert_eq!(known(big), Some((ROOT, b"linked".to_vec())), "the last that it was told of");
    done(&fs, || fs.unlink(ROOT, b"linked"));
    assert_eq!(known(big), None, "that name is gone");
    assert!(!fs.forget(big, 1) && fs.forget(big, 1));
    assert!(!fs.oldest_held(9).contains(&big));
}
