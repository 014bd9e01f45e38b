//! Random changes of modes, owners, ACLs and names, here and in a directory of the disk's own file system:
//! each is answered the same, and leaves the same.
//!
//! Prints its seed; `KIVAFS_SEED` repeats it, `KIVAFS_STEPS` sets its length.

use crate::lists::{A_GROUP, ACCESS, DEFAULT, GROUP, MASK, OTHERS, OWNER, USER, acl};
use crate::place::{Medium, Place};
use crate::random::Random;
use crate::user::{ALICE, BOB, NOBODY, ROOT, User};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What somebody does.
#[derive(Clone, Debug)]
enum Step {
    Create(u32),
    Mkdir(u32),
    Mkfifo(u32),
    Symlink,
    Chmod(u32),
    Chown(Option<u32>, Option<u32>),
    SetAcl(&'static str, Vec<u8>),
    RemoveAcl(&'static str),
    SetXattr,
    Rename(String),
    Link(String),
    Remove,
    Open { write: bool },
    List,
}

impl Step {
    fn take(&self, top: &Path, path: &str) -> Result<()> {
        let at = top.join(path);
        match self {
            Step::Create(mode) => OpenOptions::new().write(true).create_new(true).mode(*mode).open(at).map(drop),
            Step::Mkdir(mode) => DirBuilder::new().mode(*mode).create(at),
            Step::Mkfifo(mode) => mkfifo(&at, *mode),
            Step::Symlink => std::os::unix::fs::symlink("a", at),
            Step::Chmod(mode) => std::fs::set_permissions(at, Permissions::from_mode(*mode)),
            Step::Chown(uid, gid) => std::os::unix::fs::chown(at, *uid, *gid),
            Step::SetAcl(name, value) => xattr::set(at, name, value),
            Step::RemoveAcl(name) => xattr::remove(at, name),
            Step::SetXattr => xattr::set(at, "user.x", b"y"),
            Step::Rename(to) => std::fs::rename(at, top.join(to)),
            Step::Link(to) => std::fs::hard_link(at, top.join(to)),
            Step::Remove => match std::fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => std::fs::remove_dir(at),
                _ => std::fs::remove_file(at),
            },
            // Who opens a fifo must not wait for the other end.
            Step::Open { write } => {
                let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
                OpenOptions::new().read(!*write).write(*write).custom_flags(flags).open(at).map(drop)
            }
            Step::List => std::fs::read_dir(at).map(drop),
        }
    }

    /// What it touches beside its path.
    fn other_path(&self) -> &str {
        match self {
            Step::Rename(to) | Step::Link(to) => to,
            _ => "",
        }
    }
}

fn mkfifo(path: &Path, mode: u32) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends with a NUL and outlives the call.
    match unsafe { libc::mkfifo(path.as_ptr(), mode) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// What a step has not touched is looked at now and then.
const WHOLE_EVERY: u64 = 20;

const IDS: [u32; 6] = [0, 1000, 1001, 2000, 3000, 65534];

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.within(0..from.len())].clone()
}

fn mode(random: &mut Random) -> u32 {
    let special = if random.one_in(3) { 0o7000 } else { 0o777 };
    match random.within(0..3) {
        0 => pick(random, &[0o644, 0o666, 0o755, 0o777, 0o600, 0o2770, 0o2755, 0o2640, 0o4711]),
        _ => random.next() as u32 & (0o777 | special),
    }
}

fn path(random: &mut Random) -> String {
    let names: Vec<&str> = (0..random.within(1..4)).map(|_| pick(random, &["a", "b", "c"])).collect();
    names.join("/")
}

/// Mostly one that is.
fn some_acl(random: &mut Random) -> Vec<u8> {
    let perm = |random: &mut Random| pick(random, &[0, 1, 2, 3, 4, 5, 6, 7, 7, 7]);
    let none = u32::MAX;
    let named = |random: &mut Random, tag| -> Vec<(u16, u16, u32)> {
        let count = if random.one_in(2) { 0 } else { random.within(0..4) };
        (0..count).map(|_| (tag, perm(random), pick(random, &IDS))).collect()
    };
    let mut entries = vec![(OWNER, perm(random), none)];
    entries.extend(named(random, USER));
    entries.push((GROUP, perm(random), none));
    entries.extend(named(random, A_GROUP));
    if entries.len() > 2 || random.one_in(4) {
        entries.push((MASK, perm(random), none));
    }
    entries.push((OTHERS, perm(random), none));
    if random.one_in(12) {
        match random.within(0..4) {
            0 => entries.reverse(),
            1 => drop(entries.pop()),
            2 => entries[0].1 = 8,
            _ => entries.retain(|(tag, ..)| *tag != MASK),
        }
    }
    let mut bytes = acl(&entries);
    if random.one_in(30) {
        let length = random.within(0..bytes.len());
        bytes.truncate(length);
    }
    bytes
}

fn step(random: &mut Random) -> Step {
    let which = pick(random, &[ACCESS, DEFAULT]);
    match random.within(0..40) {
        0..4 => Step::Create(mode(random)),
        4..7 => Step::Mkdir(mode(random)),
        7 => Step::Mkfifo(mode(random)),
        8 => Step::Symlink,
        9..14 => Step::Chmod(mode(random)),
        14..17 => {
            let mut id = || if random.one_in(3) { None } else { Some(pick(random, &IDS)) };
            Step::Chown(id(), id())
        }
        17..26 => Step::SetAcl(which, some_acl(random)),
        26 | 27 => Step::RemoveAcl(which),
        28 => Step::SetXattr,
        29 | 30 => Step::Rename(path(random)),
        31 => Step::Link(path(random)),
        32 => Step::Remove,
        33..39 => Step::Open { write: random.one_in(2) },
        _ => Step::List,
    }
}

/// What root sees of a node.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    xattrs: BTreeMap<String, Vec<u8>>,
}

fn look_at(at: &Path) -> Option<Seen> {
    let meta = std::fs::symlink_metadata(at).ok()?;
    let names = xattr::list(at).unwrap();
    let read = |name: std::ffi::OsString| {
        let value = xattr::get(at, &name).unwrap().expect("an attribute that is listed");
        (name.into_string().unwrap(), value)
    };
    let xattrs = names.map(read).collect();
    Some(Seen { mode: meta.mode(), uid: meta.uid(), gid: meta.gid(), nlink: meta.nlink(), xattrs })
}

fn look(at: &Path, name: &str, all: &mut BTreeMap<String, Seen>) {
    all.insert(name.to_owned(), look_at(at).unwrap());
    if at.is_dir() && !at.is_symlink() {
        for entry in std::fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            look(&entry.path(), &format!("{name}/{}", entry.file_name().to_str().unwrap()), all);
        }
    }
}

/// Everything.
fn seen(top: &Path) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    look(top, "", &mut all);
    all
}

/// What is at these paths, and what they lie in.
fn seen_at(top: &Path, paths: &[&str]) -> BTreeMap<String, Seen> {
    let all = paths.iter().flat_map(|path| Path::new(path).ancestors());
    all.filter_map(|path| Some((path.to_str()?.to_owned(), look_at(&top.join(path))?))).collect()
}

fn errno(done: &Result<()>) -> Option<i32> {
    done.as_ref().err().map(|error| error.raw_os_error().expect("the system's error"))
}

pub fn random_changes_are_answered_as_the_disk_does(medium: Medium) {
    let seed = crate::number_from("KIVAFS_SEED").unwrap_or_else(crate::fresh_seed);
    let steps = crate::number_from("KIVAFS_STEPS").unwrap_or(3000);
    println!("KIVAFS_SEED={seed} KIVAFS_STEPS={steps}");
    let mut random = Random::new(seed);
    let place = Place::new(medium);
    // Anybody may come here.
    std::fs::set_permissions(place.root(), Permissions::from_mode(0o755)).unwrap();
    place.mount(&[]).silently();
    let tops = [place.dir.join("top"), place.root().join("plain")];
    for top in &tops {
        std::fs::create_dir(top).unwrap();
        std::fs::set_permissions(top, Permissions::from_mode(0o777)).unwrap();
        // Here ACLs must be known, or there is nothing to compare with.
        File::create(top.join("a")).unwrap();
        xattr::set(top.join("a"), ACCESS, &crate::lists::for_user(7, 1000, 5, 4, 5, 0)).unwrap();
    }
    let mut log: Vec<String> = Vec::new();
    let mut there = vec![String::new(), "a".to_owned()];
    let mut counts = BTreeMap::new();
    for number in 0..steps {
        let user: User = pick(&mut random, &[ROOT, ROOT, ALICE, ALICE, BOB, NOBODY]);
        let umask = pick(&mut random, &[0, 0o022, 0o027, 0o077, 0o777]);
        let mut step = step(&mut random);
        let at = match &step {
            Step::Create(_) | Step::Mkdir(_) | Step::Mkfifo(_) | Step::Symlink => path(&mut random),
            _ if random.one_in(6) => path(&mut random),
            _ => pick(&mut random, &there),
        };
        if at.is_empty() && !matches!(step, Step::SetAcl(DEFAULT, _) | Step::RemoveAcl(_)) {
            // Where nobody may go, there is nothing to see.
            step = Step::Chmod(0o777 | mode(&mut random) & 0o2000);
        }
        let step = match step {
            // The kernel lets anybody who owns nothing of it do this on FUSE, where it does nothing then.
            Step::Chown(None, None) if user.uid != 0 => Step::List,
            step => step,
        };
        let done = tops.each_ref().map(|top| user.does(umask, || step.take(top, &at)));
        let [ours, theirs] = done.each_ref().map(errno);
        log.push(format!("{number}: {user:?} umask {umask:03o}: {at:?}: {step:x?}: {done:?}"));
        let told = || log[log.len().saturating_sub(25)..].join("\n");
        assert_eq!(ours, theirs, "seed {seed}: answered differently:\n{}", told());
        *counts.entry(theirs).or_insert(0) += 1;
        let touched = [at.as_str(), step.other_path()];
        let [here, there] = match number % WHOLE_EVERY {
            0 => {
                let all = tops.each_ref().map(|top| seen(top));
                there = all[1].keys().map(|name| name.trim_start_matches('/').to_owned()).collect();
                all
            }
            _ => tops.each_ref().map(|top| seen_at(top, &touched)),
        };
        if here != there {
            let names = here.keys().chain(there.keys());
            let name = names.into_iter().find(|name| here.get(*name) != there.get(*name)).unwrap();
            let (here, there) = (here.get(name), there.get(name));
            panic!("seed {seed}: {name}: here {here:x?}, there {there:x?}:\n{}", told());
        }
    }
    println!("answers: {counts:?}");
    place.umounts();
    place.mount(&[]).silently();
    assert_eq!(seen(&tops[0]), seen(&tops[1]), "seed {seed}: not the same any more after a remount");
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}
