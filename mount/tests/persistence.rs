//! What outlives a mount, and who may have a store. Needs root and /dev/fuse; fails without.

mod place;

use nix::sys::signal::{Signal, kill};
use place::{Medium, Place, on_each_medium, until};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

on_each_medium!(
    a_store_is_made_once,
    mount_makes_a_store_if_asked_to,
    content_outlives_the_mount,
    content_outlives_umount_and_mount_at_once,
    what_was_fsynced_outlives_a_kill,
    a_signal_commits,
    a_store_that_is_mounted_is_in_use_for_who_writes,
    a_store_is_not_mounted_twice_at_one_place,
    one_shot_commands,
    put_keeps_mode_and_owner,
    a_read_only_mount_changes_nothing,
    what_a_mapping_changes_over_very_many_pieces_is_all_there,
);

fn a_store_is_made_once(medium: Medium) {
    let place = Place::new(medium);
    place.on_store("create", &[]).fails(1, &["already exists", place.name()]);
}

#[test]
fn what_is_no_store_is_told_so_and_left_alone() {
    let place = Place::bare(Medium::File);
    for command in ["info", "check", "mount"] {
        let words: &[&str] = if command == "mount" { &[place.dir.to_str().unwrap()] } else { &[] };
        place.on_store(command, words).fails(1, &["no such store", "kivafs create"]);
    }
    std::fs::write(&place.store, "something else").unwrap();
    for command in ["info", "check", "mount"] {
        let words: &[&str] = if command == "mount" { &[place.dir.to_str().unwrap()] } else { &[] };
        place.on_store(command, words).fails(1, &["not a kivafs store"]);
    }
    place.on_store("get", &["path"]).fails(1, &["not a kivafs store"]);
    assert_eq!(std::fs::read(&place.store).unwrap(), b"something else");
    assert_eq!(place.mounted(), None);
}

fn mount_makes_a_store_if_asked_to(medium: Medium) {
    let place = Place::bare(medium);
    place.mount(&["--create"]).silently();
    place.umounts();
    place.mount(&["--create"]).silently();
    place.umounts();
}

/// (In a bucket it stays, empty: no name there is used for a second time.)
#[test]
fn the_file_that_mount_made_is_removed_if_it_can_not_be_mounted() {
    let place = Place::bare(Medium::File);
    place.mount(&["--create", "-o", "log=/no/such/directory/log"]).fails(1, &["/no/such/directory/log"]);
    assert!(!place.store.exists());
}

fn content_outlives_the_mount(medium: Medium) {
    let place = Place::new(medium);
    for round in 0..5 {
        place.mount(&[]).silently();
        for before in 0..round {
            let path = place.dir.join(format!("file-{before}"));
            assert_eq!(std::fs::read(path).unwrap(), vec![before; 100_000]);
        }
        std::fs::write(place.dir.join(format!("file-{round}")), vec![round; 100_000]).unwrap();
        place.umounts();
    }
    place.on_store("check", &["--data"]).silently();
}

fn content_outlives_umount_and_mount_at_once(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    for round in 0..20 {
        std::fs::write(place.dir.join("round"), round.to_string()).unwrap();
        until("nothing is open there", || nix::mount::umount(&place.dir).is_ok());
        place.mount(&[]).silently();
        assert_eq!(std::fs::read_to_string(place.dir.join("round")).unwrap(), round.to_string());
    }
    place.umounts();
}

fn what_was_fsynced_outlives_a_kill(medium: Medium) {
    let place = Place::new(medium);
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

fn a_signal_commits(medium: Medium) {
    let place = Place::new(medium);
    let server = place.mount_in_foreground(&["-o", "commit=3600"]);
    std::fs::write(place.dir.join("file"), "not synced").unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), 0);
    assert_eq!(place.on_store("get", &["file"]).silently().text(), "not synced");
}

fn a_store_that_is_mounted_is_in_use_for_who_writes(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let pid = place.server().unwrap().to_string();
    let dir = place.dir.to_str().unwrap();
    place.elsewhere().mount(&[]).fails(3, &["mounted at", dir, &pid, "use"]);
    place.on_store("rm", &["a/b"]).fails(3, &[dir, &pid, &format!("use {dir}/a/b")]);
    place.put("a/b", b"x").fails(3, &[dir]);
    let told = place.on_store("info", &["--json"]).silently().text();
    assert!(told.contains(&format!("\"pid\":{pid}")) && told.contains(dir), "{told}");
    assert!(place.on_store("info", &[]).silently().text().contains(&pid));
    place.umounts();
    let told = place.on_store("info", &["--json"]).silently().text();
    assert!(told.contains("\"holder\":null"), "{told}");
}

/// (Who reads a bucket is in nobody's way.)
#[test]
fn a_file_that_is_mounted_is_in_use_for_who_reads_as_well() {
    let place = Place::new(Medium::File);
    place.mount(&[]).silently();
    let pid = place.server().unwrap().to_string();
    let dir = place.dir.to_str().unwrap();
    place.on_store("get", &["a/b"]).fails(3, &[dir, &pid, &format!("use {dir}/a/b")]);
    place.on_store("check", &[]).fails(3, &[dir]);
    place.umounts();
}

fn a_store_is_not_mounted_twice_at_one_place(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    std::fs::write(place.dir.join("file"), "").unwrap();
    place.mount(&[]).fails(3, &["mounted at", place.dir.to_str().unwrap()]);
    place.umounts();
    assert_eq!(place.mounted(), None, "the first was the only one");
}

fn one_shot_commands(medium: Medium) {
    let place = Place::new(medium);
    place.put("/key", b"value").silently();
    assert_eq!(place.on_store("get", &["key"]).silently().text(), "value");
    place.put("key", b"another value").silently();
    assert_eq!(place.on_store("get", &["/key"]).silently().text(), "another value");
    let large: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    place.put("large", &large).silently();
    assert!(place.on_store("get", &["large"]).silently().0.stdout == large);
    assert_eq!(place.on_store("ls", &[]).silently().text(), "key\nlarge\n");
    place.on_store("rm", &["key"]).silently();
    place.on_store("get", &["key"]).fails(1, &["key", "no such file"]);
    place.on_store("rm", &["key"]).fails(1, &["key"]);
    assert_eq!(place.on_store("ls", &["/"]).silently().text(), "large\n");
    place.on_store("check", &["--data"]).silently();
}

fn put_keeps_mode_and_owner(medium: Medium) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("key");
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    place.umounts();
    place.put("key", b"new").silently();
    place.mount(&[]).silently();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.len()), (0o600, 12, 34, 3));
}

fn a_read_only_mount_changes_nothing(medium: Medium) {
    let place = Place::new(medium);
    place.put("key", b"value").silently();
    // Its commits and epochs; of a file every byte, too.
    let state = || (place.info(), std::fs::read(&place.store).ok());
    let before = state();
    place.mount(&["-o", "ro"]).silently();
    assert_eq!(std::fs::read(place.dir.join("key")).unwrap(), b"value");
    place.umounts();
    assert!(state() == before, "{} was {}", place.info(), before.0);
}

#[test]
fn a_store_has_the_size_it_was_given() {
    let place = Place::bare(Medium::File);
    place.on_store("create", &["--size", "1M"]).fails(1, &["1048576 bytes is too small", "at least 49M"]);
    assert!(!place.store.exists());
    place.on_store("create", &["--size", "128M"]).silently();
    assert!(place.on_store("info", &["--json"]).silently().text().contains(&format!("\"size\":{}", 128 << 20)));
}

/// Page writeback takes its requests for written as a whole, whatever they answer: also where a file
/// is in more pieces than one transaction replaces.
fn what_a_mapping_changes_over_very_many_pieces_is_all_there(medium: Medium) {
    const LENGTH: usize = 2 << 20;
    const MAPPED: usize = 1 << 20;
    let place = Place::new(medium);
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
    place.on_store("check", &["--data"]).silently();
}

/// Both superblocks of a store that an earlier or later version wrote, as that version would have: whole.
#[test]
fn a_store_of_another_version_is_told_so_and_left_alone() {
    for version in [1, 3] {
        is_told_so_and_left_alone(version);
    }
}

fn is_told_so_and_left_alone(version: u8) {
    let place = Place::new(Medium::File);
    let mut bytes = std::fs::read(&place.store).unwrap();
    for superblock in bytes[..8192].chunks_mut(4096) {
        superblock[8] = version;
        let sum = kivafs::log::checksum(&superblock[..120]);
        superblock[120..136].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(&place.store, &bytes).unwrap();
    for command in ["info", "check", "mount"] {
        let words: &[&str] = if command == "mount" { &[place.dir.to_str().unwrap()] } else { &[] };
        place.on_store(command, words).fails(1, &["another version of kivafs", "open it with"]);
    }
    assert_eq!(std::fs::read(&place.store).unwrap(), bytes);
    assert_eq!(place.mounted(), None);
}
