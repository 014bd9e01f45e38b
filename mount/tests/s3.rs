//! The command line and mounts of stores in a bucket, on a real S3 server. Needs root and /dev/fuse;
//! fails without.

mod line;
mod place;

use line::Line;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::ceph::ceph;
use place::{Foreground, Medium, Place, Said, until};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// A store, and the line that it is reached by.
fn over_a_line() -> (Place, Line) {
    let line = Line::to(&ceph().endpoint);
    let mut place = Place::bare(Medium::Bucket);
    place.set("AWS_ENDPOINT_URL", &line.endpoint);
    place.on_store("create", &[]).silently();
    (place, line)
}

fn start_umount(place: &Place, words: &[&str]) -> Child {
    let umount = place.command(["umount".as_ref(), place.dir.as_os_str()]);
    // Who runs the tests in the background of a shell ignores SIGINT, and children inherit that.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(umount.get_program()).args(umount.get_args()).args(words);
    command.envs(umount.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Said {
    Said(child.wait_with_output().unwrap())
}

#[test]
fn a_store_is_made_mounted_and_unmounted_and_nothing_of_it_is_on_the_machine() {
    let place = Place::new(Medium::Bucket);
    place.on_store("create", &[]).fails(1, &["already exists", place.name()]);
    place.mount(&[]).silently();
    let mounted = place.mounted().unwrap();
    assert_eq!(mounted.fs_type, "fuse.kivafs");
    assert!(mounted.line.contains(place.name()), "{}", mounted.line);
    std::fs::write(place.dir.join("file"), "content").unwrap();
    std::fs::write(place.dir.join("big"), vec![7; 5 << 20]).unwrap();
    File::open(place.dir.join("file")).unwrap().sync_all().unwrap();
    let said = place.umount(&[]).silently().text();
    assert!(said.starts_with(&format!("{}: ", place.name())) && said.lines().count() == 1, "{said}");
    assert!(said.contains(" PUT, ") && said.contains(" up, "), "{said}");
    assert_eq!(place.mounted(), None);
    let other = place.elsewhere();
    other.mount(&[]).silently();
    assert_eq!(std::fs::read(other.dir.join("file")).unwrap(), b"content");
    assert_eq!(std::fs::read(other.dir.join("big")).unwrap(), vec![7; 5 << 20]);
    // By the store's name, with a slash behind.
    Said(other.command(["umount", &format!("{}/", place.name())]).output().unwrap()).silently();
    assert_eq!(other.mounted(), None);
    place.on_store("check", &["--data"]).silently();
}

#[test]
fn what_needs_no_mount_works_in_a_bucket() {
    let place = Place::new(Medium::Bucket);
    place.put("a", b"content of a").silently();
    place.put("b", &[7; 3 << 20]).silently();
    assert_eq!(place.on_store("ls", &[]).silently().text(), "a\nb\n");
    assert_eq!(place.on_store("get", &["a"]).silently().text(), "content of a");
    assert_eq!(place.on_store("get", &["b"]).silently().0.stdout, [7; 3 << 20]);
    place.on_store("rm", &["a"]).silently();
    place.on_store("get", &["a"]).fails(1, &["no such file"]);
    place.on_store("check", &["--data"]).silently();
    let info = place.info();
    assert_eq!(info["store"], place.name());
    assert_eq!(info["holder"], serde_json::Value::Null);
    assert!(info["bucket"]["puts"].as_u64().unwrap() >= 4, "{info}");
    assert!(info["bucket"]["bytes_up"].as_u64().unwrap() > 0, "{info}");
    assert!(info["bucket"]["changes"].as_u64().unwrap() >= 3, "{info}");
    assert_eq!(info["bucket"]["fencing_proven"], true);
    let text = place.on_store("info", &["--cost"]).silently().text();
    for part in [place.name(), "held by    nobody", " PUT", "one at a time", "S3 Standard", "DynamoDB", "write units"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[test]
fn options_say_what_else_the_environment_would() {
    let ceph = ceph();
    let mut place = Place::bare(Medium::Bucket);
    place.environment.retain(|(name, _)| name != "AWS_ENDPOINT_URL" && name != "AWS_REGION");
    let cache = place.root().join("cache");
    let options = format!(
        "endpoint={},region=us-east-1,path_style,requests=4,timeout=60,disk_cache={}:64M,cache=32M",
        ceph.endpoint,
        cache.display()
    );
    place.on_store("create", &["-o", &options]).silently();
    place.mount(&["-o", &options, "-o", "commit=1"]).silently();
    std::fs::write(place.dir.join("file"), "content").unwrap();
    place.umount(&[]).silently();
    assert_eq!(place.on_store("get", &["file", "-o", &options]).silently().text(), "content");
    // Credentials from a profile.
    let credentials = place.root().join("credentials");
    let text = format!("[work]\naws_access_key_id={}\naws_secret_access_key={}\n", ceph.key, ceph.secret);
    std::fs::write(&credentials, text).unwrap();
    place.environment.clear();
    place.set("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap());
    place.set("AWS_EC2_METADATA_DISABLED", "true");
    let options = format!("{options},profile=work");
    assert_eq!(place.on_store("ls", &["-o", &options]).silently().text(), "file\n");
    // The process that serves has the environment of who mounts.
    place.mount(&["-o", &options]).silently();
    assert_eq!(std::fs::read(place.dir.join("file")).unwrap(), b"content");
    place.umount(&[]).silently();
}

#[test]
fn a_store_that_is_mounted_here_is_told_with_its_place() {
    let place = Place::new(Medium::Bucket);
    place.mount(&[]).silently();
    let dir = place.dir.to_str().unwrap();
    let pid = place.server().unwrap().to_string();
    let other = place.elsewhere();
    other.mount(&[]).fails(3, &[place.name(), "mounted at", dir, &format!("pid {pid}"), "/PATH"]);
    place.put("a/b", b"").fails(3, &[&format!("use {dir}/a/b")]);
    place.on_store("rm", &["a"]).fails(3, &["mounted at", dir]);
    // Who only reads is in nobody's way, and sees what is durable.
    std::fs::write(place.dir.join("durable"), "content").unwrap();
    File::open(place.dir.join("durable")).unwrap().sync_all().unwrap();
    assert_eq!(place.on_store("get", &["durable"]).silently().text(), "content");
    let reads = other.mount(&["-o", "ro"]);
    assert_eq!((reads.code(), reads.errors().lines().count()), (0, 1), "{}", reads.errors());
    assert!(reads.errors().contains(&format!("pid {pid}")) && reads.errors().contains("shows it as of"));
    assert_eq!(std::fs::read(other.dir.join("durable")).unwrap(), b"content");
    other.umount(&[]).silently();
    let info = place.info();
    assert_eq!(info["holder"]["serving_at"], dir);
    assert_eq!(info["holder"]["pid"].to_string(), pid);
    assert_eq!(info["holder"]["here"], true);
    assert!(place.on_store("info", &[]).silently().text().contains(&format!("pid {pid}")));
    place.umount(&[]).silently();
    other.mount(&[]).silently();
    other.umount(&[]).silently();
}

#[test]
fn umount_then_mount_waits_for_what_is_on_its_way() {
    let (place, line) = over_a_line();
    for round in 0..3 {
        place.mount(&[]).silently();
        std::fs::write(place.dir.join("file"), format!("content {round}")).unwrap();
        let old = place.server().unwrap();
        line.cut();
        until("nothing is open there", || umount2(&place.dir, MntFlags::empty()).is_ok());
        let mut mount = place.command(["mount", place.name(), place.dir.to_str().unwrap()]);
        let mut mount = mount.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        until("the old server says that it drains", || {
            std::fs::read_to_string(format!("/proc/{old}/comm")).is_ok_and(|name| name == "kivafs-draining\n")
        });
        assert!(mount.try_wait().unwrap().is_none(), "it waits");
        line.mend();
        end(mount).silently();
        until("the old server is gone", || !place.servers().contains(&old));
        assert_eq!(std::fs::read_to_string(place.dir.join("file")).unwrap(), format!("content {round}"));
        place.umount(&[]).silently();
    }
}

#[test]
fn a_holder_that_sleeps_keeps_its_store_until_it_is_taken_over_and_then_is_fenced() {
    let place = Place::new(Medium::Bucket);
    let log = place.root().join("log");
    place.mount(&["-o", &format!("log={}", log.display())]).silently();
    let file = place.dir.join("file");
    std::fs::write(&file, "before").unwrap();
    // Nothing may be open there while the server sleeps: each process that a test of this program
    // starts has a copy for a moment, and would wait when it lets go of that.
    File::open(&file).unwrap().sync_all().unwrap();
    let old = place.server().unwrap();
    kill(old, Signal::SIGSTOP).unwrap();
    let other = place.elsewhere();
    other.mount(&[]).fails(3, &["mounted at", place.dir.to_str().unwrap()]);
    other.mount(&["--takeover"]).silently();
    assert_eq!(std::fs::read(other.dir.join("file")).unwrap(), b"before");
    std::fs::write(other.dir.join("new"), "by the taker").unwrap();
    File::open(other.dir.join("new")).unwrap().sync_all().unwrap();
    kill(old, Signal::SIGCONT).unwrap();
    let late = File::options().append(true).open(&file).and_then(|mut file| {
        file.write_all(b" after")?;
        file.sync_all()
    });
    assert_eq!(late.unwrap_err().raw_os_error(), Some(Errno::EIO as i32));
    // From now on nothing is taken in; what was there can be read.
    let refused = std::fs::write(place.dir.join("later"), "").unwrap_err().raw_os_error();
    assert!(matches!(refused, Some(nix::libc::EIO | nix::libc::EROFS)), "{refused:?}");
    let taker = other.server().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("taken over") && said.contains(&taker.to_string()), "{said}");
    place.umount(&[]).fails(1, &["not everything is durable", "taken over"]);
    assert_eq!(std::fs::read(other.dir.join("file")).unwrap(), b"before");
    assert_eq!(std::fs::read(other.dir.join("new")).unwrap(), b"by the taker");
    other.umount(&[]).silently();
}

/// Serves the place as another machine would: with a name and processes of its own.
fn serve_on_another_machine(place: &Place) -> Foreground {
    let script = "hostname hay && exec \"$0\" mount -f \"$1\" \"$2\"";
    let child = Command::new("unshare")
        .args(["--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script])
        .args([Path::new(env!("CARGO_BIN_EXE_kivafs")), &place.store, &place.dir])
        .envs(place.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the store is held", || place.info()["holder"]["host"] == "hay");
    Foreground(child)
}

#[test]
fn a_holder_on_another_machine_is_told_with_what_takes_the_store_over() {
    let place = Place::new(Medium::Bucket);
    let _far = serve_on_another_machine(&place);
    let other = place.elsewhere();
    let dir = place.dir.to_str().unwrap();
    let told = [place.name(), "held by pid", "on hay", dir, "since", " UTC", "no commit for", "--takeover"];
    other.mount(&[]).fails(3, &told);
    place.put("a", b"").fails(3, &told);
    assert!(place.on_store("info", &[]).silently().text().contains("on hay"));
    other.mount(&["--takeover"]).silently();
    std::fs::write(other.dir.join("file"), "by the taker").unwrap();
    other.umount(&[]).silently();
    assert_eq!(place.on_store("get", &["file"]).silently().text(), "by the taker");
}

#[test]
fn what_is_wrong_is_told_in_one_line() {
    let place = Place::bare(Medium::Bucket);
    place.on_store("info", &[]).fails(1, &["no such store", "kivafs create", place.name()]);
    place.mount(&[]).fails(1, &["no such store"]);
    let with = |name: &str, value: &str| {
        let mut other = place.elsewhere();
        other.set(name, value);
        other
    };
    // Nobody listens there.
    let nobody = with("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let key = with("AWS_ACCESS_KEY_ID", "wrongkey");
    let secret = with("AWS_SECRET_ACCESS_KEY", "wrongsecret");
    nobody.on_store("ls", &["-o", "timeout=1"]).fails(1, &[place.name(), "127.0.0.1:1"]);
    nobody.mount(&["-o", "timeout=1"]).fails(1, &[place.name(), "127.0.0.1:1"]);
    for command in ["create", "info", "ls"] {
        key.on_store(command, &[]).fails(1, &[place.name(), "key"]);
        secret.on_store(command, &[]).fails(1, &[place.name(), "secret"]);
    }
    let mut bucket = place.elsewhere();
    bucket.store = "s3://kivafs-no-such-bucket/prefix".into();
    for command in ["create", "info", "ls"] {
        bucket.on_store(command, &[]).fails(1, &["s3://kivafs-no-such-bucket/prefix", "bucket"]);
    }
    bucket.mount(&["--create"]).fails(1, &["bucket"]);
    assert_eq!(bucket.mounted(), None);
    let mut none = place.elsewhere();
    none.environment.retain(|(name, _)| name == "AWS_ENDPOINT_URL");
    none.set("AWS_EC2_METADATA_DISABLED", "true");
    let home = none.root().to_str().unwrap().to_owned();
    none.set("HOME", &home);
    none.on_store("info", &[]).fails(1, &["credentials"]);
    let options = format!("endpoint=https://127.0.0.1:1,ca={}/no-such.pem", place.root().display());
    place.on_store("info", &["-o", &options]).fails(1, &[place.name(), "no-such.pem"]);
}

#[test]
fn a_forced_umount_ends_at_once_though_s3_is_away() {
    let (place, line) = over_a_line();
    place.mount(&[]).silently();
    std::fs::write(place.dir.join("durable"), "content").unwrap();
    File::open(place.dir.join("durable")).unwrap().sync_all().unwrap();
    line.cut();
    std::fs::write(place.dir.join("lost"), "content").unwrap();
    let open = File::open(place.dir.join("lost")).unwrap();
    std::thread::scope(|scope| {
        // Somebody waits for storage.
        let waits = scope.spawn(|| open.sync_all());
        place.umount(&["--force"]).fails(1, &["not everything is durable", place.dir.to_str().unwrap()]);
        assert!(waits.join().unwrap().is_err());
    });
    assert_eq!(place.mounted(), None);
    until("the server is gone", || place.servers().is_empty());
    line.mend();
    place.mount(&[]).silently();
    assert_eq!(std::fs::read(place.dir.join("durable")).unwrap(), b"content");
    place.umount(&[]).silently();
}

#[test]
fn a_forced_umount_ends_a_copy_that_waits_for_room() {
    let (place, line) = over_a_line();
    place.mount(&[]).silently();
    line.cut();
    let path = place.dir.join("big");
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| {
            let mut file = File::create(path)?;
            let mut block = vec![0; 1 << 20];
            // More than may ever be in flight.
            for number in 0..256 {
                block.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * at * 7 + at / 251 + number) as u8);
                file.write_all(&block)?;
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), std::io::Error>(())
        });
        until("the copy is near the limit", || written.load(Ordering::Relaxed) >= 6);
        place.umount(&["--force"]).fails(1, &["not everything is durable"]);
        assert!(copy.join().unwrap().is_err());
    });
    until("the server is gone", || place.servers().is_empty());
    line.mend();
    place.on_store("check", &["--data"]).silently();
}

#[test]
fn an_umount_waits_for_s3_and_may_be_interrupted_without_harm() {
    let (place, line) = over_a_line();
    place.mount(&[]).silently();
    line.cut();
    std::fs::write(place.dir.join("file"), "content").unwrap();
    let umount = start_umount(&place, &[]);
    until("it is unmounted", || place.mounted().is_none());
    kill(Pid::from_raw(umount.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(end(umount).0.status.code(), None, "it was interrupted");
    assert!(!place.servers().is_empty(), "the server goes on");
    line.mend();
    until("the server is done", || place.servers().is_empty());
    assert_eq!(place.on_store("get", &["file"]).silently().text(), "content");
    // And who waits until the end is told how it went.
    place.mount(&[]).silently();
    line.cut();
    std::fs::write(place.dir.join("file"), "new content").unwrap();
    let umount = start_umount(&place, &[]);
    until("it is unmounted", || place.mounted().is_none());
    line.mend();
    assert!(end(umount).silently().text().contains(" PUT"));
    assert_eq!(place.on_store("get", &["file"]).silently().text(), "new content");
}

#[test]
fn an_umount_gives_up_when_s3_stays_away() {
    let (place, line) = over_a_line();
    place.mount(&["-o", "timeout=3"]).silently();
    line.cut();
    std::fs::write(place.dir.join("file"), "content").unwrap();
    place.umount(&[]).fails(1, &["not everything is durable"]);
    until("the server is gone", || place.servers().is_empty());
    line.mend();
    // Whether the last request was heard is not known: the file may be there, but only as a whole.
    place.on_store("check", &["--data"]).silently();
    let got = place.on_store("get", &["file"]);
    assert!(got.code() == 1 || got.text() == "content", "{got:?}");
}

#[test]
fn signals_end_a_mount_in_order_and_a_second_one_gives_up_on_s3() {
    let (place, line) = over_a_line();
    let server = place.mount_in_foreground(&[]);
    std::fs::write(place.dir.join("file"), "content").unwrap();
    server.signal(Signal::SIGTERM);
    let said = server.end();
    assert_eq!(said.code(), 0, "{}", said.errors());
    assert!(said.errors().contains(" PUT, "), "the log has the requests: {}", said.errors());
    assert_eq!(place.on_store("get", &["file"]).silently().text(), "content");
    let mut server = place.mount_in_foreground(&[]);
    line.cut();
    std::fs::write(place.dir.join("lost"), "content").unwrap();
    server.signal(Signal::SIGTERM);
    until("it has begun to end", || {
        std::fs::read_to_string(format!("/proc/{}/comm", server.0.id())).unwrap() == "kivafs-draining\n"
    });
    assert!(server.0.try_wait().unwrap().is_none());
    server.signal(Signal::SIGTERM);
    let said = server.end();
    assert_eq!(said.code(), 1);
    assert!(said.errors().contains("not everything is durable"), "{}", said.errors());
    assert_eq!(place.mounted(), None);
    line.mend();
}

#[test]
fn a_mount_point_may_not_hide_the_disk_cache() {
    let place = Place::bare(Medium::Bucket);
    for inside in ["", "/deeper/still"] {
        let cache = format!("disk_cache={}{inside}", place.dir.display());
        place.mount(&["-o", &cache]).fails(1, &["the disk cache lies inside", place.dir.to_str().unwrap()]);
    }
}

/// What a copy leaves when its bucket goes away for good: errors, and nothing that waits for ever.
#[test]
fn reads_of_what_is_known_go_on_while_s3_is_away() {
    let (place, line) = over_a_line();
    place.mount(&[]).silently();
    std::fs::write(place.dir.join("file"), "content").unwrap();
    File::open(place.dir.join("file")).unwrap().sync_all().unwrap();
    line.cut();
    let mut text = String::new();
    File::open(place.dir.join("file")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    std::fs::write(place.dir.join("more"), "and more").unwrap();
    line.mend();
    File::open(place.dir.join("more")).unwrap().sync_all().unwrap();
    place.umount(&[]).silently();
    assert_eq!(place.on_store("get", &["more"]).silently().text(), "and more");
}
