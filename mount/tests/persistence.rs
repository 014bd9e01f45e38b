//! What outlives a mount: these need a store that keeps what it is given, and locks its file.

mod place;

use nix::sys::signal::{Signal, kill};
use place::{Place, Said, kivafs, until};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

fn on(place: &Place, command: &str, words: &[&str]) -> Said {
    kivafs([OsStr::new(command), place.store.as_os_str()].into_iter().chain(words.iter().map(OsStr::new)))
}

fn put(place: &Place, path: &str, content: &[u8]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kivafs"))
        .args(["put".as_ref(), place.store.as_os_str(), path.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(content);
    Said(child.wait_with_output().unwrap())
}

#[test]
fn a_store_is_made_once() {
    let place = Place::new();
    on(&place, "create", &[]).fails(1, &["already exists", place.store.to_str().unwrap()]);
}

#[test]
fn what_is_no_store_is_told_so_and_left_alone() {
    let place = Place::bare();
    for command in ["info", "check", "mount"] {
        let words: &[&str] = if command == "mount" { &[place.dir.to_str().unwrap()] } else { &[] };
        on(&place, command, words).fails(1, &["no such store", "kivafs create"]);
    }
    std::fs::write(&place.store, "something else").unwrap();
    for command in ["info", "check", "mount"] {
        let words: &[&str] = if command == "mount" { &[place.dir.to_str().unwrap()] } else { &[] };
        on(&place, command, words).fails(1, &["not a kivafs store"]);
    }
    on(&place, "get", &["path"]).fails(1, &["not a kivafs store"]);
    assert_eq!(std::fs::read(&place.store).unwrap(), b"something else");
    assert_eq!(place.mounted(), None);
}

#[test]
fn mount_makes_a_store_if_asked_to_and_unmakes_it_if_it_can_not_be_mounted() {
    let place = Place::bare();
    place.mount(&["--create"]).silently();
    place.umounts();
    place.mount(&["--create"]).silently();
    place.umounts();

    let place = Place::bare();
    place.mount(&["--create", "-o", "log=/no/such/directory/log"]).fails(1, &["/no/such/directory/log"]);
    assert!(!place.store.exists());
}

#[test]
fn content_outlives_the_mount() {
    let place = Place::new();
    for round in 0..5 {
        place.mount(&[]).silently();
        for before in 0..round {
            let path = place.dir.join(format!("file-{before}"));
            assert_eq!(std::fs::read(path).unwrap(), vec![before; 100_000]);
        }
        std::fs::write(place.dir.join(format!("file-{round}")), vec![round; 100_000]).unwrap();
        place.umounts();
    }
    on(&place, "check", &["--data"]).silently();
}

#[test]
fn content_outlives_umount_and_mount_at_once() {
    let place = Place::new();
    place.mount(&[]).silently();
    for round in 0..20 {
        std::fs::write(place.dir.join("round"), round.to_string()).unwrap();
        until("nothing is open there", || nix::mount::umount(&place.dir).is_ok());
        place.mount(&[]).silently();
        assert_eq!(std::fs::read_to_string(place.dir.join("round")).unwrap(), round.to_string());
    }
    place.umounts();
}

#[test]
fn what_was_fsynced_outlives_a_kill() {
    let place = Place::new();
    place.mount(&[]).silently();
    let mut file = File::create(place.dir.join("file")).unwrap();
    file.write_all(b"durable").unwrap();
    file.sync_all().unwrap();
    drop(file);
    kill(place.server().unwrap(), Signal::SIGKILL).unwrap();
    until("the mount is dead", || std::fs::metadata(&place.dir).is_err());
    assert_eq!(place.mount(&[]).code(), 0);
    assert_eq!(std::fs::read(place.dir.join("file")).unwrap(), b"durable");
}

#[test]
fn a_signal_commits() {
    let place = Place::new();
    let server = place.mount_in_foreground(&["-o", "commit=3600"]);
    std::fs::write(place.dir.join("file"), "not synced").unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), 0);
    assert_eq!(on(&place, "get", &["file"]).silently().text(), "not synced");
}

#[test]
fn a_store_that_is_mounted_is_in_use() {
    let place = Place::new();
    place.mount(&[]).silently();
    let pid = place.server().unwrap().to_string();
    let dir = place.dir.to_str().unwrap();
    let other = place.root().join("other");
    std::fs::create_dir(&other).unwrap();
    on(&place, "mount", &[other.to_str().unwrap()]).fails(3, &["mounted at", dir, &pid, "use"]);
    on(&place, "get", &["a/b"]).fails(3, &[dir, &pid, &format!("use {dir}/a/b")]);
    on(&place, "rm", &["a/b"]).fails(3, &[dir]);
    on(&place, "check", &[]).fails(3, &[dir]);
    put(&place, "a/b", b"x").fails(3, &[dir]);
    let told = on(&place, "info", &["--json"]).silently().text();
    assert!(told.contains(&format!("\"pid\":{pid}")) && told.contains(dir), "{told}");
    assert!(on(&place, "info", &[]).silently().text().contains(&pid));
    place.umounts();
    let told = on(&place, "info", &["--json"]).silently().text();
    assert!(told.contains("\"holder\":null"), "{told}");
}

#[test]
fn a_store_is_not_mounted_twice_at_one_place() {
    let place = Place::new();
    place.mount(&[]).silently();
    std::fs::write(place.dir.join("file"), "").unwrap();
    place.mount(&[]).fails(3, &["mounted at", place.dir.to_str().unwrap()]);
    place.umounts();
    assert_eq!(place.mounted(), None, "the first was the only one");
}

#[test]
fn one_shot_commands() {
    let place = Place::new();
    put(&place, "/key", b"value").silently();
    assert_eq!(on(&place, "get", &["key"]).silently().text(), "value");
    put(&place, "key", b"another value").silently();
    assert_eq!(on(&place, "get", &["/key"]).silently().text(), "another value");
    let large: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    put(&place, "large", &large).silently();
    assert!(on(&place, "get", &["large"]).silently().0.stdout == large);
    assert_eq!(on(&place, "ls", &[]).silently().text(), "key\nlarge\n");
    on(&place, "rm", &["key"]).silently();
    on(&place, "get", &["key"]).fails(1, &["key", "no such file"]);
    on(&place, "rm", &["key"]).fails(1, &["key"]);
    assert_eq!(on(&place, "ls", &["/"]).silently().text(), "large\n");
    on(&place, "check", &["--data"]).silently();
}

#[test]
fn put_keeps_mode_and_owner() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::new();
    place.mount(&[]).silently();
    let path = place.dir.join("key");
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    place.umounts();
    put(&place, "key", b"new").silently();
    place.mount(&[]).silently();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.len()), (0o600, 12, 34, 3));
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let place = Place::new();
    put(&place, "key", b"value").silently();
    let before = std::fs::read(&place.store).unwrap();
    place.mount(&["-o", "ro"]).silently();
    assert_eq!(std::fs::read(place.dir.join("key")).unwrap(), b"value");
    place.umounts();
    assert!(std::fs::read(&place.store).unwrap() == before);
}

#[test]
fn a_store_has_the_size_it_was_given() {
    let place = Place::bare();
    on(&place, "create", &["--size", "1M"]).fails(1, &["1048576 bytes is too small", "at least 33M"]);
    assert!(!place.store.exists());
    on(&place, "create", &["--size", "128M"]).silently();
    assert!(on(&place, "info", &["--json"]).silently().text().contains(&format!("\"size\":{}", 128 << 20)));
}

/// Page writeback takes its requests for written as a whole, whatever they answer: also where a file
/// is in more pieces than one transaction replaces.
#[test]
fn what_a_mapping_changes_over_very_many_pieces_is_all_there() {
    const LENGTH: usize = 2 << 20;
    const MAPPED: usize = 1 << 20;
    let place = Place::new();
    place.mount(&[]).silently();
    let path = place.dir.join("pieces");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    for piece in 0..1200 {
        file.write_all_at(b"x", piece * 1000).unwrap();
    }
    file.set_len(LENGTH as u64).unwrap();
    // SAFETY: a new shared mapping of a file that is as long; it is only used below, by one thread,
    // and is not unmapped before that.
    let mapping = unsafe {
        let address = libc::mmap(
            std::ptr::null_mut(),
            MAPPED,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        assert_ne!(address, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        std::slice::from_raw_parts_mut(address.cast::<u8>(), MAPPED)
    };
    mapping.fill(b'A');
    // SAFETY: the mapping from above, whole; nothing refers to it after this.
    unsafe {
        assert_eq!(libc::msync(mapping.as_mut_ptr().cast(), MAPPED, libc::MS_SYNC), 0);
        assert_eq!(libc::munmap(mapping.as_mut_ptr().cast(), MAPPED), 0);
    }
    drop(file);
    place.umounts();
    place.mount(&[]).silently();
    let found = std::fs::read(&path).unwrap();
    assert_eq!(found.len(), LENGTH);
    let wrong = found[..MAPPED].iter().position(|byte| *byte != b'A');
    assert_eq!(wrong, None, "the first byte that is not what the mapping had");
    place.umounts();
    on(&place, "check", &["--data"]).silently();
}

/// Both superblocks of a store that a later version wrote, as that version would have: whole.
#[test]
fn a_store_of_a_later_version_is_told_so_and_left_alone() {
    let place = Place::new();
    let mut bytes = std::fs::read(&place.store).unwrap();
    for superblock in bytes[..8192].chunks_mut(4096) {
        superblock[8] = 2;
        let sum = kivafs::log::checksum(&superblock[..120]);
        superblock[120..136].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(&place.store, &bytes).unwrap();
    for command in ["info", "check", "mount"] {
        let words: &[&str] = if command == "mount" { &[place.dir.to_str().unwrap()] } else { &[] };
        on(&place, command, words).fails(1, &["newer kivafs", "update kivafs"]);
    }
    assert_eq!(std::fs::read(&place.store).unwrap(), bytes);
    assert_eq!(place.mounted(), None);
}
