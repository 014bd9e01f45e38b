//! Keys over a socket beside a mount: what is set is seen in the mount, and what is done there is got.
//! Needs root and /dev/fuse; fails without.

mod place;

use kivafs_mount::kvlds::client::{Client, ClientError};
use kivafs_mount::kvlds::message::{Request, decode_done};
use kivafs_mount::kvlds::server::{Address, Socket};
use nix::libc;
use nix::sys::signal::Signal;
use place::{Medium, Place, on_each_medium, until};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

on_each_medium!(
    what_is_set_is_seen_by_every_open_read_and_stat,
    what_is_deleted_is_gone_and_goes_on_where_it_is_open,
    what_is_added_is_there_at_once_where_it_was_looked_for_in_vain,
    what_is_done_in_the_mount_is_got,
    keys_may_be_the_files_of_another_directory,
    a_mapping_sees_what_is_set,
    a_set_does_not_wait_for_who_waits_for_it,
    what_is_appended_comes_after_what_was_set,
    each_read_and_stat_is_as_new_as_what_was_acknowledged,
    nothing_brings_back_what_was_before,
    a_file_that_is_new_to_the_kernel_is_not_older_than_its_key,
    the_end_of_the_mount_is_the_end_of_the_socket,
    a_mount_for_reading_answers_reads,
    without_its_socket_nothing_is_mounted,
    the_socket_is_where_and_as_it_is_asked_for,
);

/// A mount with a socket beside it.
struct Served {
    place: Place,
    address: Address,
}

fn socket_of(place: &Place) -> PathBuf {
    place.root().canonicalize().unwrap().join("socket")
}

impl Served {
    fn new(medium: Medium) -> Served {
        Served::with(medium, "")
    }

    /// `options` begin with a comma.
    fn with(medium: Medium, options: &str) -> Served {
        let place = Place::new(medium);
        let socket = socket_of(&place);
        place.mount(&["-o", &format!("kvlds={}{options}", socket.display())]).silently();
        Served { place, address: Address::Unix(socket) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.dir.join(name)
    }

    fn client(&self) -> Client {
        Client::connect(&self.address).unwrap()
    }

    fn ends(self) {
        self.place.umounts();
        self.place.on_store("check", &["--data"]).silently();
    }
}

fn set(client: &mut Client, key: &str, value: &[u8]) {
    assert!(client.change(&Request::Set { key: key.as_bytes(), value }).unwrap());
}

fn delete(client: &mut Client, key: &str) {
    assert!(client.change(&Request::Delete { key: key.as_bytes() }).unwrap());
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_absent(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn shell(dir: &Path, script: &str) -> String {
    let output = std::process::Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    place::Said(output).silently().text()
}

fn what_is_set_is_seen_by_every_open_read_and_stat(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    let (path, other) = (served.path("key"), served.path("dir/other"));
    std::fs::write(&path, "first").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
    std::fs::create_dir(served.path("dir")).unwrap();
    std::fs::hard_link(&path, &other).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let mut early = File::open(&path).unwrap();
    let by_other_name = File::open(&other).unwrap();
    let values: [&[u8]; 7] = [b"second", b"a", b"much longer than any before", b"", &[7; 255], b"fifth", b"sixth"];
    for value in values {
        set(&mut client, "key", value);
        // Warm from the round before, in each way that a file is looked at.
        let mut start = vec![9; value.len()];
        early.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(start, value);
        let mut all = Vec::new();
        early.rewind().unwrap();
        early.read_to_end(&mut all).unwrap();
        assert_eq!(all, value, "through what was open before");
        for now in [early.metadata().unwrap(), by_other_name.metadata().unwrap(), std::fs::metadata(&other).unwrap()] {
            assert_eq!(now.len(), value.len() as u64);
            assert_eq!((now.ino(), now.uid(), now.gid(), now.nlink()), (before.ino(), 1234, 4321, 2));
            assert_eq!(now.mode() & 0o7777, 0o751, "as with any write, set-user-id falls");
        }
        assert_eq!(std::fs::read(&path).unwrap(), value);
        assert_eq!(std::fs::read(&other).unwrap(), value);
        assert_eq!(client.get(b"key").unwrap().unwrap(), value);
    }
    // A file that is no value any more, because it is too long, and one again.
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert_eq!(client.get(b"key").unwrap(), None);
    let mut end = [0; 9];
    early.read_exact_at(&mut end, 99_991).unwrap();
    set(&mut client, "key", b"short");
    assert_eq!((early.metadata().unwrap().len(), std::fs::read(&other).unwrap()), (5, b"short".to_vec()));
    served.ends_when_closed((early, by_other_name));
}

impl Served {
    fn ends_when_closed<T>(self, open: T) {
        drop(open);
        self.ends();
    }
}

fn what_is_deleted_is_gone_and_goes_on_where_it_is_open(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    for (name, length) in [("small", 5), ("large", 3_000_000)] {
        let (path, link) = (served.path(name), served.path("link"));
        std::fs::write(&path, vec![b'v'; length]).unwrap();
        std::fs::hard_link(&path, &link).unwrap();
        std::fs::metadata(&path).unwrap();
        delete(&mut client, name);
        assert!(is_absent(&path) && File::open(&path).is_err());
        assert_eq!(names(&served.place.dir), ["link"]);
        let left = std::fs::metadata(&link).unwrap();
        assert_eq!((left.nlink(), left.len()), (1, length as u64));
        let open = File::open(&link).unwrap();
        assert_eq!(open.metadata().unwrap().nlink(), 1);
        delete(&mut client, "link");
        assert!(is_absent(&link));
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        let mut end = [0; 5];
        open.read_exact_at(&mut end, length as u64 - 5).unwrap();
        assert_eq!(&end, b"vvvvv");
        // A new one of that name is another file.
        set(&mut client, "link", b"new");
        assert_ne!(std::fs::metadata(&link).unwrap().ino(), left.ino());
        assert_eq!(std::fs::read(&link).unwrap(), b"new");
        drop(open);
        delete(&mut client, "link");
    }
    served.ends();
}

fn what_is_added_is_there_at_once_where_it_was_looked_for_in_vain(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    let root = |name: &str| served.path(name);
    for round in 0..20 {
        let (name, shown) = (format!("a/{round}"), format!("a%2F{round}"));
        assert!(is_absent(&root(&shown)) && is_absent(&root(&shown)));
        let before = std::fs::metadata(&served.place.dir).unwrap();
        assert!(client.change(&Request::Add { key: name.as_bytes(), value: b"value" }).unwrap());
        let made = std::fs::metadata(root(&shown)).unwrap();
        assert_eq!((made.len(), made.mode() & 0o7777), (5, 0o644));
        assert_eq!(names(&served.place.dir).len(), round + 1);
        let after = std::fs::metadata(&served.place.dir).unwrap();
        assert!((after.mtime(), after.mtime_nsec()) >= (before.mtime(), before.mtime_nsec()));
        assert_eq!(after.mtime(), made.mtime(), "the directory is as new as what is in it");
        assert_eq!(after.mtime_nsec(), made.mtime_nsec());
        assert!(!client.change(&Request::Add { key: name.as_bytes(), value: b"other" }).unwrap());
    }
    served.ends();
}

fn what_is_done_in_the_mount_is_got(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    let dir = &served.place.dir;
    shell(dir, "echo value > key; echo more >> key");
    assert_eq!(client.get(b"key").unwrap().unwrap(), b"value\nmore\n");
    shell(dir, "cp key copy; mv copy 100%; ln key link; echo linked > link");
    assert_eq!(client.get(b"100%").unwrap().unwrap(), b"value\nmore\n");
    assert_eq!(client.get(b"key").unwrap().unwrap(), b"linked\n");
    set(&mut client, "link", b"set");
    assert_eq!(shell(dir, "cat key link"), "setset");
    // Over a name that was set, and back.
    shell(dir, "mv 100% key; cat key link");
    assert_eq!(client.get(b"key").unwrap().unwrap(), b"value\nmore\n");
    set(&mut client, "key", b"again");
    assert_eq!(shell(dir, "mv link key; cat key"), "set");
    assert_eq!(client.get(b"key").unwrap().unwrap(), b"set");
    shell(dir, "rm key; mkdir key");
    assert_eq!(client.get(b"key").unwrap(), None);
    assert!(!client.change(&Request::Set { key: b"key", value: b"value" }).unwrap_or(false), "a directory stays one");
    assert_eq!(shell(dir, "rmdir key; ls"), "");
    served.ends();
}

fn keys_may_be_the_files_of_another_directory(medium: Medium) {
    let place = Place::bare(medium);
    place.on_store("create", &["--kvlds-dir", "app/.kivafs"]).fails(2, &["--kvlds-dir", ".kivafs", "not permitted"]);
    place.on_store("create", &["--kvlds-dir", "app/keys"]).silently();
    let socket = socket_of(&place);
    place.mount(&["-o", &format!("kvlds={}", socket.display())]).silently();
    let served = Served { place, address: Address::Unix(socket) };
    let mut client = served.client();
    let keys = served.path("app/keys");
    for round in 0..20 {
        let (name, shown) = (format!("a/{round}"), keys.join(format!("a%2F{round}")));
        assert!(is_absent(&shown) && is_absent(&shown));
        assert_eq!(names(&keys).len(), round);
        let before = std::fs::metadata(&keys).unwrap();
        set(&mut client, &name, b"value");
        let (made, after) = (std::fs::metadata(&shown).unwrap(), std::fs::metadata(&keys).unwrap());
        assert_eq!((made.len(), made.mode() & 0o7777), (5, 0o644));
        assert!((after.mtime(), after.mtime_nsec()) >= (before.mtime(), before.mtime_nsec()));
        assert_eq!((after.mtime(), after.mtime_nsec()), (made.mtime(), made.mtime_nsec()));
        let mut open = File::open(&shown).unwrap();
        set(&mut client, &name, b"longer value");
        let mut all = String::new();
        open.read_to_string(&mut all).unwrap();
        assert_eq!(all, "longer value");
        assert_eq!(names(&keys).len(), round + 1);
    }
    shell(&served.place.dir, "echo no key > key; echo in > app/keys/file; mv app/keys .; rm keys/a*");
    assert_eq!(client.get(b"key").unwrap(), None);
    assert_eq!(client.get(b"file").unwrap().unwrap(), b"in\n");
    assert_eq!(client.get(b"a/7").unwrap(), None);
    delete(&mut client, "file");
    assert_eq!(shell(&served.place.dir, "ls . keys"), ".:\napp\nkey\nkeys\n\nkeys:\n");
    let busy = std::fs::remove_dir(served.path("keys")).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
    served.ends();
}

fn a_mapping_sees_what_is_set(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    set(&mut client, "key", b"before");
    let file = File::open(served.path("key")).unwrap();
    // SAFETY: a new shared mapping, for reading only; it is only used below and unmapped at the end.
    let mapping = unsafe {
        let address = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(address, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        address.cast::<u8>()
    };
    let mapped = |at: usize| {
        // SAFETY: within the mapping from above; what others change is read byte by byte, each anew.
        unsafe { mapping.add(at).read_volatile() }
    };
    for value in [&b"before"[..], b"after", b"and once more, longer", b"x"] {
        set(&mut client, "key", value);
        let seen: Vec<u8> = (0..value.len()).map(mapped).collect();
        assert_eq!(seen, value);
        assert_eq!(mapped(value.len()), 0);
    }
    // SAFETY: the mapping from above, whole; nothing refers to it after this.
    unsafe { assert_eq!(libc::munmap(mapping.cast(), 4096), 0) };
    served.ends_when_closed(file);
}

/// While a mapping has changed pages, which are written first; and while a user writes to a set-user-id
/// file, whose page is held until the kernel has forgotten the mode.
fn a_set_does_not_wait_for_who_waits_for_it(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    let path = served.path("key");
    set(&mut client, "key", b"before");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    // SAFETY: a new shared mapping, of which only the bytes below are written; unmapped right after.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let address = libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(address, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        address.cast::<u8>().write_volatile(b'B');
        set(&mut client, "key", b"set");
        address.cast::<u8>().add(1).write_volatile(b'E');
        set(&mut client, "key", b"set again");
        assert_eq!(libc::munmap(address, 4096), 0);
    }
    drop(file);
    assert_eq!(client.get(b"key").unwrap().unwrap(), std::fs::read(&path).unwrap(), "whichever it is");
    let open_to_all = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open_to_all(served.place.root(), 0o755);
    open_to_all(&path, 0o6777);
    let mut writer = std::process::Command::new("sh");
    let script = "while [ -e key ]; do printf 'by a user' 2>/dev/null 1<>key || :; done";
    std::os::unix::process::CommandExt::uid(writer.args(["-c", script]).current_dir(&served.place.dir), 65534);
    let mut writer = writer.spawn().unwrap();
    for round in 0..rounds(medium) {
        open_to_all(&path, 0o6777);
        set(&mut client, "key", &[round as u8; 30]);
        let value = std::fs::read(&path).unwrap();
        assert!(value.len() == 30 && value[29] == round as u8, "{value:?}");
    }
    delete(&mut client, "key");
    writer.wait().unwrap();
    served.ends();
}

fn what_is_appended_comes_after_what_was_set(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    let path = served.path("key");
    std::fs::write(&path, "abc").unwrap();
    let mut log = File::options().append(true).open(&path).unwrap();
    let reader = File::open(&path).unwrap();
    for value in [&b"longer than that"[..], b"s", b"", b"0123456789"] {
        set(&mut client, "key", value);
        // The page is there, and where the kernel has the end is not asked for.
        reader.read_at(&mut [0; 1], 0).unwrap();
        log.write_all(b"END").unwrap();
        let expected = [value, b"END"].concat();
        assert_eq!(client.get(b"key").unwrap().unwrap(), expected);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }
    served.ends_when_closed((log, reader));
}

/// How long those tests go on that look for a race, in changes of a key.
/// How often something is looked at that may be wrong for a moment.
const MOMENTS: usize = 20;

fn rounds(medium: Medium) -> u64 {
    match medium {
        Medium::File => 1000,
        Medium::Bucket => 100,
    }
}

/// Many keys, each set and deleted by one and looked at by others, with a kernel that is made to let go
/// of nodes and to look again all the time.
fn each_read_and_stat_is_as_new_as_what_was_acknowledged(medium: Medium) {
    const KEYS: usize = 16;
    const SETTERS: usize = 4;
    let served = Served::with(medium, ",inodes=8");
    // Of each key the number that was acknowledged last, and the one that was asked for last.
    let marks: Vec<[AtomicU64; 2]> = (0..KEYS).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
    let name = |key: usize| format!("key-{key}");
    {
        let mut client = served.client();
        (0..KEYS).for_each(|key| set(&mut client, &name(key), &0_u64.to_be_bytes()));
    }
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let setters: Vec<_> = (0..SETTERS)
            .map(|number| {
                let (served, marks) = (&served, &marks);
                scope.spawn(move || {
                    let mut client = served.client();
                    for round in 1..=rounds(medium) {
                        for key in (number..KEYS).step_by(SETTERS) {
                            marks[key][1].store(round, Ordering::SeqCst);
                            if round % 16 == 5 {
                                delete(&mut client, &name(key));
                            }
                            set(&mut client, &name(key), &round.to_be_bytes());
                            marks[key][0].store(round, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        for looker in 0..4 {
            let (served, marks, ending) = (&served, &marks, &ending);
            scope.spawn(move || {
                let mut turn = looker;
                while !ending.load(Ordering::Relaxed) {
                    turn += 1;
                    let key = turn % KEYS;
                    let at_least = marks[key][0].load(Ordering::SeqCst);
                    let path = served.path(&name(key));
                    if looker == 0 {
                        // Listed with attributes.
                        names(&served.place.dir);
                    }
                    let found = std::fs::metadata(&path).and_then(|_| std::fs::read(&path));
                    let at_most = marks[key][1].load(Ordering::SeqCst);
                    match found {
                        Ok(value) => {
                            let value = u64::from_be_bytes(value.try_into().expect("whole values"));
                            assert!((at_least..=at_most).contains(&value), "{value}, not {at_least} to {at_most}");
                        }
                        Err(error) => {
                            assert!(matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)), "{error}");
                            let was_deleted = (at_least + 1..=at_most).any(|round| round % 16 == 5);
                            assert!(was_deleted, "{error}: between {at_least} and {at_most}");
                        }
                    }
                }
            });
        }
        let ended: Vec<_> = setters.into_iter().map(|setter| setter.join()).collect();
        ending.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    served.ends();
}

/// Answers to the kernel that are under way when a key is set tell what was before. Whatever they are,
/// once the change is acknowledged nobody hears of that any more.
fn nothing_brings_back_what_was_before(medium: Medium) {
    let served = Served::with(medium, ",inodes=8");
    let mut client = served.client();
    let (path, dir) = (served.path("key"), served.path("dir"));
    std::fs::create_dir(&dir).unwrap();
    set(&mut client, "key", b"");
    std::fs::hard_link(&path, dir.join("name")).unwrap();
    let ending = AtomicBool::new(false);
    let ignored = |_: std::io::Result<()>| {};
    let (path, dir) = (&path, &dir);
    let disturb: [&(dyn Fn(u32) + Sync); 7] = [
        &|turn| ignored(std::fs::set_permissions(path, Permissions::from_mode(0o600 + turn % 64))),
        &|turn| {
            let link = dir.join(format!("link-{}", turn % 8));
            ignored(std::fs::hard_link(path, &link));
            ignored(std::fs::remove_file(&link));
        },
        &|_| drop(std::fs::metadata(dir.join("name"))),
        &|_| drop(File::options().create(true).append(true).open(path)),
        &|_| drop(std::fs::read(path)),
        &|turn| {
            // So many that the kernel is asked to let go of others.
            let other = dir.join(format!("other-{}", turn % 32));
            ignored(std::fs::write(&other, ""));
            names(dir);
        },
        &|_| ignored(std::os::unix::fs::chown(path, Some(1), None)),
    ];
    std::thread::scope(|scope| {
        for disturb in disturb {
            let ending = &ending;
            scope.spawn(move || {
                let mut turn = 0;
                while !ending.load(Ordering::Relaxed) {
                    disturb(turn);
                    turn += 1;
                }
            });
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds(medium) {
                let value = vec![round as u8; (round as usize * 37) % 256];
                set(&mut client, "key", &value);
                for path in [path, &dir.join("name")] {
                    let at = || format!("round {round}: {}", path.display());
                    // A chmod that was answered before takes its length with it when it gets to run: the
                    // length may be wrong for that moment, and no byte of what was before is seen.
                    let length = || std::fs::metadata(path).unwrap().len();
                    assert!((0..MOMENTS).any(|_| length() == value.len() as u64), "{}", at());
                    let is_read = || {
                        let read = std::fs::read(path).unwrap();
                        let shared = read.len().min(value.len());
                        assert_eq!(read[..shared], value[..shared], "{}", at());
                        assert!(read[shared..].iter().all(|byte| *byte == 0), "{}: {read:?}", at());
                        read.len() == value.len()
                    };
                    assert!((0..MOMENTS).any(|_| is_read()), "{}", at());
                }
            }
        }));
        ending.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
    served.ends();
}

/// A file that is looked for, and in the same moment made and set again: the kernel is told to forget
/// what it is just about to hear of for the first time.
fn a_file_that_is_new_to_the_kernel_is_not_older_than_its_key(medium: Medium) {
    let served = Served::new(medium);
    let mut client = served.client();
    let path = served.path("key");
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for list in [false, false, true] {
            let (ending, path, dir) = (&ending, &path, &served.place.dir);
            scope.spawn(move || {
                while !ending.load(Ordering::Relaxed) {
                    // Each is cheap, so that many come in that moment.
                    match list {
                        true => drop(names(dir)),
                        false => drop(std::fs::metadata(path)),
                    }
                }
            });
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds(medium) {
                let (old, value) = ([b'o'; 3], vec![round as u8; 10 + round as usize % 200]);
                let steps = [
                    Request::Delete { key: b"key" },
                    Request::Set { key: b"key", value: &old },
                    Request::Set { key: b"key", value: &value },
                ];
                for request in &steps[..if round % 8 == 7 { 2 } else { 3 }] {
                    // Not in one packet, which would be one change.
                    client.ask(request);
                    client.flush().unwrap();
                }
                let value = if round % 8 == 7 {
                    // Gone as soon as it was there.
                    client.ask(&steps[0]);
                    client.flush().unwrap();
                    None
                } else {
                    Some(value)
                };
                (0..3).for_each(|_| assert!(decode_done(&client.receive().unwrap().1).unwrap()));
                let length = std::fs::metadata(&path).ok().map(|metadata| metadata.len());
                assert_eq!(length, value.as_ref().map(|value| value.len() as u64), "round {round}");
                assert_eq!(std::fs::read(&path).ok(), value, "round {round}");
            }
        }));
        ending.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
    served.ends();
}

fn the_end_of_the_mount_is_the_end_of_the_socket(medium: Medium) {
    let served = Served::new(medium);
    let mut clients: Vec<Client> = (0..5).map(|_| served.client()).collect();
    clients.iter_mut().for_each(|client| set(client, "key", b"value"));
    served.place.umounts();
    for client in &mut clients {
        assert!(matches!(client.get(b"key"), Err(ClientError::Io(_))), "its connection has ended");
    }
    assert!(!socket_of(&served.place).exists());
    // By a signal, while much is set: what was acknowledged is there.
    let socket = format!("kvlds={}", socket_of(&served.place).display());
    let server = served.place.mount_in_foreground(&["-o", &socket]);
    let acknowledged = std::thread::scope(|scope| {
        let (told, setting) = std::sync::mpsc::channel();
        let its = &served;
        let setter = scope.spawn(move || {
            let mut client = its.client();
            let mut number = 0_u64;
            while client.change(&Request::Set { key: b"number", value: &number.to_be_bytes() }).is_ok() {
                let _ = told.send(());
                number += 1;
            }
            number
        });
        (0..20).for_each(|_| setting.recv().unwrap());
        server.signal(Signal::SIGTERM);
        setter.join().unwrap()
    });
    assert_eq!(server.end().code(), 0);
    assert_eq!(served.place.mounted(), None);
    assert!(!socket_of(&served.place).exists());
    let found = served.place.on_store("get", &["number"]).silently().0.stdout;
    let found = u64::from_be_bytes(found.try_into().unwrap());
    assert!(found + 1 >= acknowledged, "{found} of {acknowledged}");
    served.place.on_store("check", &["--data"]).silently();
}

fn a_mount_for_reading_answers_reads(medium: Medium) {
    let place = Place::new(medium);
    place.put("key", b"value").silently();
    let socket = socket_of(&place);
    place.mount(&["-o", &format!("ro,kvlds={}", socket.display())]).silently();
    let address = Address::Unix(socket);
    let mut client = Client::connect(&address).unwrap();
    assert_eq!(client.get(b"key").unwrap().unwrap(), b"value");
    let refused = client.change(&Request::Set { key: b"key", value: b"other" });
    assert!(matches!(refused, Err(ClientError::Io(_))), "there is no answer that says no");
    assert_eq!(Client::connect(&address).unwrap().get(b"key").unwrap().unwrap(), b"value");
    assert_eq!(std::fs::read(place.dir.join("key")).unwrap(), b"value");
    place.umounts();
}

fn without_its_socket_nothing_is_mounted(medium: Medium) {
    let place = Place::bare(medium);
    let socket = socket_of(&place);
    let option = format!("kvlds={}", socket.display());
    let other = Socket::listen(&Address::Unix(socket.clone()), 0o600).unwrap();
    place.mount(&["--create", "-o", &option]).fails(1, &["socket", "another process serves"]);
    assert_eq!(place.mounted(), None);
    assert!(medium == Medium::Bucket || !place.store.exists(), "what was made for it is gone again");
    drop(other);
    std::fs::write(&socket, "a file").unwrap();
    place.mount(&["--create", "-o", &option]).fails(1, &["no socket"]);
    assert_eq!(std::fs::read(&socket).unwrap(), b"a file");
    std::fs::remove_file(&socket).unwrap();
    let inside = format!("kvlds={}", place.dir.join("socket").display());
    place.mount(&["--create", "-o", &inside]).fails(1, &["inside", "hide"]);
    assert_eq!(place.mounted(), None);
    place.mount(&["--create", "-o", &option]).silently();
    place.umounts();
}

fn the_socket_is_where_and_as_it_is_asked_for(medium: Medium) {
    let place = Place::new(medium);
    // Relative to where the command is called, which the process that serves leaves.
    let mut command = place.command(["mount", place.name(), place.dir.to_str().unwrap()]);
    let said = command.args(["-o", "kvlds=beside,kvlds_mode=0660"]).current_dir(place.root()).output().unwrap();
    place::Said(said).silently();
    let socket = place.root().join("beside");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    set(&mut Client::connect(&Address::Unix(socket.clone())).unwrap(), "key", b"value");
    place.umounts();
    assert!(!socket.exists());
    place.mount(&["-o", "kvlds_mode=0660"]).fails(2, &["kvlds_mode", "kvlds=PATH"]);
    place.mount(&["-o", "kvlds=/s,kvlds_mode=9"]).fails(2, &["'9'", "0660"]);
    // A port: whichever is free for the moment.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.mount(&["-o", &format!("kvlds={free}")]).silently();
    set(&mut Client::connect(&Address::Tcp(free)).unwrap(), "key", b"over TCP");
    assert_eq!(std::fs::read(place.dir.join("key")).unwrap(), b"over TCP");
    place.umounts();
    until("the server is gone", || place.servers().is_empty());
}
