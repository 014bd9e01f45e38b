//! `.kivafs`, `kivafs top` and the log of requests, on real mounts. Needs root and /dev/fuse; fails without.

mod place;
#[path = "control/prometheus.rs"]
mod prometheus;

use nix::sys::signal::{Signal, kill};
use place::{Medium, Place, kivafs, on_each_medium, until};
use prometheus::Metrics;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

on_each_medium!(
    it_is_there_and_not_listed,
    metrics_count_what_was_done,
    a_write_to_sync_makes_all_durable,
    fsync_of_sync_makes_all_durable,
    a_mount_for_reading_has_it_too,
    readers_race_with_changes,
);

fn own(place: &Place, name: &str) -> PathBuf {
    place.dir.join(".kivafs").join(name)
}

#[track_caller]
fn metrics(place: &Place) -> Metrics {
    Metrics::parse(&std::fs::read_to_string(own(place, "metrics")).unwrap())
}

/// Standard output of a program that has to succeed.
#[track_caller]
fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{program} {words:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn errno<T>(done: std::io::Result<T>) -> i32 {
    done.map(drop).unwrap_err().raw_os_error().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn it_is_there_and_not_listed(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let (dir, text) = (place.dir.as_path(), place.dir.to_str().unwrap());
    std::fs::write(dir.join("file"), "content").unwrap();
    assert_eq!(names(dir), ["file"]);
    assert_eq!(said("ls", &["-a", text]), ".\n..\nfile\n");
    assert_eq!(said("find", &[text, "-xdev"]), format!("{text}\n{text}/file\n"));

    let control = dir.join(".kivafs");
    let attributes = std::fs::metadata(&control).unwrap();
    assert_eq!((attributes.mode(), attributes.uid(), attributes.nlink()), (0o040_700, 0, 2));
    assert_eq!(names(&control), ["metrics", "stats", "sync"]);
    let listed = said("ls", &["-la", control.to_str().unwrap()]);
    assert_eq!(listed.lines().count(), 6, "{listed}");
    for (name, mode) in [("metrics", 0o100_400), ("stats", 0o100_400), ("sync", 0o100_600)] {
        let attributes = std::fs::metadata(own(&place, name)).unwrap();
        assert_eq!((attributes.mode(), attributes.len(), attributes.uid()), (mode, 0, 0), "{name}");
        assert!(listed.contains(name));
    }
    assert_eq!(errno(std::fs::metadata(own(&place, "other"))), libc::ENOENT);
    assert!(said("df", &[own(&place, "sync").to_str().unwrap()]).contains(text));

    // Read by programs as any file, though its size is 0.
    let stats = said("cat", &[own(&place, "stats").to_str().unwrap()]);
    assert!(stats.starts_with(&format!("kivafs {}, mounted for ", env!("CARGO_PKG_VERSION"))), "{stats}");
    let is_row = |row: &str| row.starts_with("write ") && row.split_whitespace().nth(1) == Some("1");
    assert!(stats.lines().any(is_row), "{stats}");
    let copy = place.root().join("copy");
    said("cp", &[own(&place, "metrics").to_str().unwrap(), copy.to_str().unwrap()]);
    Metrics::parse(&std::fs::read_to_string(copy).unwrap());
    assert_eq!(std::fs::read(own(&place, "sync")).unwrap(), b"");

    nothing_there_can_be_changed(&place);
    only_its_owner_gets_in(&place);

    // What is copied or removed as a whole is what is listed.
    let copied = place.root().join("copied");
    said("rsync", &["-a", &format!("{text}/"), copied.to_str().unwrap()]);
    assert_eq!(names(&copied), ["file"]);
    said("sh", &["-c", &format!("rm -rf {text}/* && rm -rf {text}/.[!.k]*")]);
    assert!(names(dir).is_empty());
    // The key of that name is another file.
    std::fs::write(dir.join("%2Ekivafs"), "a key").unwrap();
    assert_eq!(names(dir), ["%2Ekivafs"]);
    assert_eq!(names(&control), ["metrics", "stats", "sync"]);
    place.umounts();
    assert_eq!(place.on_store("ls", &[]).silently().text(), "%2Ekivafs\n");
    place.on_store("check", &["--data"]).silently();
}

fn nothing_there_can_be_changed(place: &Place) {
    let (dir, control, stats) = (&place.dir, place.dir.join(".kivafs"), own(place, "stats"));
    assert_eq!(errno(std::fs::create_dir(&control)), libc::EEXIST);
    assert_eq!(errno(File::create_new(&control)), libc::EEXIST);
    for inside in [own(place, "new"), own(place, "stats2")] {
        assert_eq!(errno(File::create(&inside)), libc::EPERM);
        assert_eq!(errno(std::fs::create_dir(&inside)), libc::EPERM);
        assert_eq!(errno(std::os::unix::fs::symlink("target", &inside)), libc::EPERM);
        assert_eq!(errno(std::fs::hard_link(dir.join("file"), &inside)), libc::EPERM);
        assert_eq!(errno(std::fs::rename(dir.join("file"), &inside)), libc::EPERM);
    }
    for old in FILES {
        assert_eq!(errno(std::fs::remove_file(own(place, old))), libc::EPERM);
        assert_eq!(errno(std::fs::rename(own(place, old), dir.join("moved"))), libc::EPERM);
        assert_eq!(errno(std::fs::hard_link(own(place, old), dir.join("linked"))), libc::EPERM);
        assert_eq!(errno(std::fs::rename(dir.join("file"), own(place, old))), libc::EPERM);
        let mode = std::fs::Permissions::from_mode(0o644);
        assert_eq!(errno(std::fs::set_permissions(own(place, old), mode)), libc::EPERM);
        assert_eq!(errno(std::os::unix::fs::chown(own(place, old), Some(1), None)), libc::EPERM);
    }
    assert_eq!(errno(std::fs::remove_dir(&control)), libc::EPERM);
    assert_eq!(errno(std::fs::rename(&control, dir.join("moved"))), libc::EPERM);
    std::fs::create_dir(dir.join("directory")).unwrap();
    assert_eq!(errno(std::fs::rename(dir.join("directory"), &control)), libc::EPERM);
    std::fs::remove_dir(dir.join("directory")).unwrap();
    for name in ["stats", "metrics"] {
        assert_eq!(errno(OpenOptions::new().write(true).open(own(place, name))), libc::EACCES);
        assert_eq!(errno(nix::unistd::truncate(&own(place, name), 0).map_err(Into::into)), libc::EPERM);
    }
    let failed = Command::new("setfattr").args(["-n", "user.a", "-v", "b"]).arg(&stats).output().unwrap();
    assert!(!failed.status.success());
    assert_eq!(said("getfattr", &["-d", "-m", "-", stats.to_str().unwrap()]), "");
    assert!(!Command::new("rm").arg("-rf").arg(&control).output().unwrap().status.success());
    assert_eq!(names(&control), ["metrics", "stats", "sync"]);
    assert_eq!(names(dir), ["file"]);
}

const FILES: [&str; 3] = ["metrics", "stats", "sync"];

/// (Root lets others into a mount, as modes permit.)
fn only_its_owner_gets_in(place: &Place) {
    std::fs::set_permissions(place.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |program: &str, path: &Path| {
        Command::new(program).arg(path).uid(65_534).gid(65_534).output().unwrap().status.success()
    };
    assert!(as_nobody("cat", &place.dir.join("file")));
    for name in FILES {
        assert!(!as_nobody("cat", &own(place, name)), "{name}");
    }
    assert!(!as_nobody("ls", &place.dir.join(".kivafs")));
}

fn metrics_count_what_was_done(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&["-o", "commit=3600"]).silently();
    let dir = &place.dir;
    let before = metrics(&place);
    for number in 0..100 {
        std::fs::write(dir.join(format!("file-{number}")), "ten bytes.").unwrap();
    }
    for number in 0..50 {
        std::fs::remove_file(dir.join(format!("file-{number}"))).unwrap();
    }
    std::fs::create_dir(dir.join("full")).unwrap();
    std::fs::rename(dir.join("file-50"), dir.join("full/file")).unwrap();
    assert_eq!(errno(std::fs::remove_dir(dir.join("full"))), libc::ENOTEMPTY);
    let file = OpenOptions::new().read(true).write(true).open(dir.join("full/file")).unwrap();
    (0..3).for_each(|_| file.sync_all().unwrap());
    // Answered by nobody but us, whatever the kernel keeps.
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    let mut read = [0; 10];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"ten bytes.");
    for absent in 0..20 {
        assert_eq!(errno(std::fs::metadata(dir.join(format!("absent-{absent}")))), libc::ENOENT);
    }
    let after = metrics(&place);

    let change = |kind: &str| after.requests(kind) - before.requests(kind);
    let counted = ["create", "write", "unlink", "mkdir", "rename", "rmdir", "fsync", "read"].map(change);
    assert_eq!(counted, [100.0, 100.0, 50.0, 1.0, 1.0, 1.0, 3.0, 1.0]);
    assert!(change("lookup") >= 120.0);
    let errors = |kind: &str| after.errors(kind) - before.errors(kind);
    assert_eq!(["rmdir", "create", "unlink", "lookup"].map(errors), [1.0, 0.0, 0.0, 0.0], "absence is no error");
    let plain = |name: &str| after.plain(name) - before.plain(name);
    assert_eq!([plain("kivafs_written_bytes_total"), plain("kivafs_read_bytes_total")], [1000.0, 10.0]);
    // A sync each, of which those behind another may share a commit.
    assert!((1.0..=3.0).contains(&plain("kivafs_commits_total")), "{}", plain("kivafs_commits_total"));
    let expected = before.plain("kivafs_nodes") + 51.0;
    assert_eq!(after.plain("kivafs_nodes"), expected);
    assert!(after.sum("kivafs_stored_bytes_total") > before.sum("kivafs_stored_bytes_total"));
    assert!(after.sum("kivafs_cache_hits_total") >= 0.0 && after.plain("kivafs_cache_bytes_max") >= 8e6);
    match medium {
        Medium::File => {
            assert!(plain("kivafs_disk_flushes_total") >= 1.0);
            assert!(!after.types.contains_key("kivafs_s3_requests_total"));
        }
        Medium::Bucket => {
            let puts = |at: &Metrics| at.get("kivafs_s3_requests_total", &[("kind", "put")]);
            assert!(puts(&after) > puts(&before));
            assert_eq!(plain("kivafs_disk_flushes_total"), 0.0);
        }
    }
    for (kind, count) in [("create", 100.0), ("rmdir", 1.0)] {
        let name = "kivafs_request_duration_seconds_count";
        assert_eq!(after.get(name, &[("kind", kind)]) - before.get(name, &[("kind", kind)]), count);
    }
    assert_eq!(after.get("kivafs_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(after.plain("kivafs_uptime_seconds") > before.plain("kivafs_uptime_seconds"));
    let memory = ["process_resident_memory_bytes", "kivafs_peak_memory_bytes"].map(|name| after.plain(name));
    assert!(1e6 < memory[0] && memory[0] <= memory[1], "{memory:?}");
    assert!((2.0..1000.0).contains(&after.plain("kivafs_held_nodes")));
    assert_eq!([after.plain("kivafs_failed"), after.sum("kivafs_waiting_requests")], [0.0, 0.0]);
    drop(file);
    place.umounts();
}

#[test]
fn a_file_tells_of_one_instant_however_it_is_read() {
    let place = Place::new(Medium::File);
    place.mount(&[]).silently();
    let whole = File::open(own(&place, "metrics")).unwrap();
    let mut pieces = File::open(own(&place, "metrics")).unwrap();
    let (mut text, mut piece) = (Vec::new(), [0; 97]);
    loop {
        // Each changes what would be told now.
        std::fs::write(place.dir.join(format!("file-{}", text.len())), "content").unwrap();
        match pieces.read(&mut piece).unwrap() {
            0 => break,
            length => text.extend_from_slice(&piece[..length]),
        }
    }
    let told = Metrics::parse(std::str::from_utf8(&text).unwrap());
    let now = metrics(&place);
    assert_eq!(told.requests("create"), 0.0);
    assert!(now.requests("create") > 100.0);
    // From anywhere, again, and beyond the end.
    let mut again = vec![0; 1000];
    pieces.read_exact_at(&mut again, 500).unwrap();
    assert_eq!(again, text[500..1500]);
    assert_eq!(pieces.read_at(&mut again, text.len() as u64 + 5).unwrap(), 0);
    drop((whole, pieces));
    // So many at once, and no more.
    let mut open: Vec<File> = (0..64).map(|_| File::open(own(&place, "stats")).unwrap()).collect();
    assert_eq!(errno(File::open(own(&place, "stats"))), libc::ENFILE);
    File::open(own(&place, "sync")).unwrap();
    open.clear();
    until("it can be opened again", || File::open(own(&place, "stats")).is_ok());
    place.umounts();
}

/// What was answered before is there after a kill, though nothing else would have been committed.
fn survives_a_kill(medium: Medium, make_durable: impl Fn(&Place)) {
    let place = Place::new(medium);
    place.mount(&["-o", "commit=3600"]).silently();
    std::fs::create_dir(place.dir.join("directory")).unwrap();
    for number in 0..50 {
        std::fs::write(place.dir.join(format!("directory/{number}")), vec![number; 5000]).unwrap();
    }
    std::fs::rename(place.dir.join("directory/7"), place.dir.join("moved")).unwrap();
    make_durable(&place);
    kill(place.server().unwrap(), Signal::SIGKILL).unwrap();
    // The root's attributes may still be in the kernel's memory; these never are.
    until("the mount is dead", || std::fs::metadata(own(&place, "sync")).is_err());
    assert_eq!(place.mount(&[]).code(), 0);
    for number in (0..50).filter(|number| *number != 7) {
        let content = std::fs::read(place.dir.join(format!("directory/{number}"))).unwrap();
        assert_eq!(content, vec![number; 5000]);
    }
    assert_eq!(std::fs::read(place.dir.join("moved")).unwrap(), vec![7; 5000]);
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

fn a_write_to_sync_makes_all_durable(medium: Medium) {
    // As people do it: the shell cuts it to length 0 first.
    survives_a_kill(medium, |place| {
        said("sh", &["-c", &format!("echo now > {}", own(place, "sync").display())]);
        assert_eq!(std::fs::metadata(own(place, "sync")).unwrap().len(), 0);
    });
}

fn fsync_of_sync_makes_all_durable(medium: Medium) {
    survives_a_kill(medium, |place| _ = said("sync", &[own(place, "sync").to_str().unwrap()]));
}

#[test]
fn each_write_to_sync_is_a_commit_of_what_is_new() {
    let place = Place::new(Medium::File);
    place.mount(&["-o", "commit=3600"]).silently();
    let mut sync = OpenOptions::new().append(true).open(own(&place, "sync")).unwrap();
    for number in 0..5 {
        let before = metrics(&place);
        std::fs::write(place.dir.join("file"), [number]).unwrap();
        sync.write_all(b"now").unwrap();
        let after = metrics(&place);
        let change = |name: &str| after.plain(name) - before.plain(name);
        assert!(change("kivafs_commits_total") >= 1.0 && change("kivafs_disk_flushes_total") >= 1.0);
        assert_eq!(after.requests("fsync") - before.requests("fsync"), 1.0);
    }
    said("touch", &[own(&place, "sync").to_str().unwrap()]);
    drop(sync);
    place.umounts();
}

fn a_mount_for_reading_has_it_too(medium: Medium) {
    let place = Place::new(medium);
    place.put("key", b"value").silently();
    place.mount(&["-o", "ro"]).silently();
    assert_eq!(std::fs::read(place.dir.join("key")).unwrap(), b"value");
    let told = metrics(&place);
    assert!(told.requests("open") >= 1.0 && told.plain("kivafs_nodes") == 2.0);
    assert_eq!(told.plain("kivafs_commits_total"), 0.0);
    assert!(std::fs::read_to_string(own(&place, "stats")).unwrap().contains("kivafs"));
    assert_eq!(said("sync", &[own(&place, "sync").to_str().unwrap()]), "");
    assert_eq!(metrics(&place).plain("kivafs_commits_total"), 0.0);
    let refused = OpenOptions::new().write(true).open(own(&place, "sync"));
    assert_eq!(errno(refused), libc::EROFS, "the kernel's own answer");
    place.umounts();
}

fn readers_race_with_changes(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let over = AtomicBool::new(false);
    let (place, over) = (&place, &over);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            scope.spawn(move || {
                let mut before = metrics(place);
                while !over.load(Ordering::Relaxed) {
                    let now = metrics(place);
                    for kind in ["create", "write", "unlink", "fsync", "lookup"] {
                        assert!(now.requests(kind) >= before.requests(kind), "{kind}");
                    }
                    // What was created was written, or will be; and only what was created is removed.
                    assert!(now.requests("create") >= now.requests("unlink"));
                    assert!(now.plain("kivafs_commits_total") >= before.plain("kivafs_commits_total"));
                    before = now;
                    let stats = std::fs::read_to_string(own(place, "stats")).unwrap();
                    assert!(stats.starts_with("kivafs ") && stats.ends_with('\n'), "{stats}");
                    if reader == 0 {
                        assert_eq!(names(&place.dir.join(".kivafs")), FILES);
                    }
                }
            });
        }
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                scope.spawn(move || {
                    for number in 0..100 {
                        let path = place.dir.join(format!("file-{writer}-{number}"));
                        std::fs::write(&path, vec![1; 100]).unwrap();
                        if number % 10 == 0 {
                            std::fs::write(own(place, "sync"), "x").unwrap();
                        }
                        std::fs::remove_file(path).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    let told = metrics(place);
    assert_eq!(["create", "write", "unlink"].map(|kind| told.requests(kind)), [300.0; 3]);
    assert!(told.requests("fsync") >= 30.0);
    place.umounts();
}

#[test]
fn top_shows_rates() {
    let place = Place::new(Medium::File);
    place.mount(&[]).silently();
    let (dir, over) = (place.dir.to_str().unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::fs::write(place.dir.join("file"), vec![1; 1000]).unwrap();
                std::fs::remove_file(place.dir.join("file")).unwrap();
            }
        });
        let shown = kivafs(["top", dir, "--json", "-n", "2"]).silently().text();
        let objects: Vec<serde_json::Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 2);
        for object in objects {
            let seconds = object["seconds"].as_f64().unwrap();
            let create = &object["requests"]["create"];
            let rate = create["per_second"].as_f64().unwrap();
            assert!(seconds > 0.5 && rate > 0.0, "{object}");
            let written = object["written_bytes_per_second"].as_f64().unwrap();
            // One more or less of each at the ends.
            assert!((written / 1000.0 - rate).abs() <= 2.0 / seconds, "{object}");
            let [mean, p99] = ["mean_seconds", "p99_seconds"].map(|name| create[name].as_f64().unwrap());
            assert!(0.0 < mean && mean < 60.0 && 0.0 < p99 && p99 < 60.0, "{object}");
            assert_eq!(create["errors_per_second"], 0.0);
            assert!(object["memory_bytes"].as_f64().unwrap() > 1e6);
            assert!(object["s3_requests_per_second"].is_null());
        }
        let shown = kivafs(["top", "--once", dir]).silently().text();
        assert!(shown.lines().any(|line| line.starts_with("create ")), "{shown}");
        assert!(!shown.contains('\x1b'), "no terminal is there");
        over.store(true, Ordering::Relaxed);
    });
    place.umounts();
    kivafs(["top", "--once", dir]).fails(1, &[dir, "no kivafs mount there"]);
    kivafs(["top", "--once", "/proc/self/status"]).fails(1, &["no kivafs mount there"]);
    kivafs(["top", "--once", "-n", "3", dir]).fails(2, &["--once"]);
}

/// Also of a store that nobody uses: it is no request that is counted.
#[test]
fn looking_is_not_counted() {
    let place = Place::new(Medium::File);
    place.mount(&[]).silently();
    let all = |told: &Metrics| told.sum("kivafs_requests_total");
    let before = metrics(&place);
    for _ in 0..10 {
        metrics(&place);
        names(&place.dir.join(".kivafs"));
    }
    let after = metrics(&place);
    // The kernel may ask for the root's attributes on the way.
    let others = after.requests("getattr") - before.requests("getattr");
    assert_eq!(all(&after) - all(&before), others);
    place.umounts();
}

#[test]
fn the_log_tells_of_each_request_if_asked_to() {
    let place = Place::new(Medium::File);
    let (debug, info) = (place.root().join("debug"), place.root().join("info"));
    for (log, level) in [(&debug, "debug"), (&info, "info")] {
        place.mount(&["-o", &format!("log={}:{level}", log.display())]).silently();
        std::fs::write(place.dir.join("file"), "content").unwrap();
        let file = File::open(place.dir.join("file")).unwrap();
        file.sync_all().unwrap();
        drop(file);
        std::fs::create_dir(place.dir.join(format!("full-{level}"))).unwrap();
        std::fs::write(place.dir.join(format!("full-{level}/file")), "").unwrap();
        assert_eq!(errno(std::fs::remove_dir(place.dir.join(format!("full-{level}")))), libc::ENOTEMPTY);
        place.umounts();
    }
    let told = std::fs::read_to_string(debug).unwrap();
    let ino = |line: &str| line.split_once("inode=").unwrap().1.split(' ').next().unwrap().parse::<u64>().unwrap();
    for (operation, result) in [
        ("create", "ok"),
        ("write", "ok"),
        ("fsync", "ok"),
        ("lookup", "ok"),
        ("release", "ok"),
        ("rmdir", "ENOTEMPTY"),
    ] {
        let fits = |line: &&str| {
            line.contains(&format!(" operation={operation} "))
                && line.ends_with(&format!(" result={result}"))
                && line.contains(" micros=")
                && ino(line) >= 1
        };
        assert!(told.lines().any(|line| fits(&line)), "{operation}: {told}");
    }
    assert!(!std::fs::read_to_string(info).unwrap().contains("operation="));
}

/// Who reads does not hold up the end.
#[test]
fn what_is_open_there_is_served_to_the_end() {
    let place = Place::new(Medium::File);
    let server = place.mount_in_foreground(&[]);
    let mut stats = File::open(own(&place, "stats")).unwrap();
    let mut first = [0; 6];
    stats.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"kivafs");
    server.signal(Signal::SIGTERM);
    until("it is unmounted", || place.mounted().is_none());
    let mut rest = String::new();
    stats.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("requests"), "{rest}");
    drop(stats);
    assert_eq!(server.end().code(), 0);
}
