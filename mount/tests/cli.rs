//! The command line: its words, each error's one line, and exit codes.

mod place;

use kivafs::store::Compression;
use kivafs_mount::cli::options::{Unknown, parse_options};
use kivafs_mount::cli::store_options::parse_store_options;
use kivafs_mount::fs::AccessTimes;
use kivafs_mount::life::plan::{LogPlace, SyncMode};
use place::{Medium, Place, Said, kivafs, kivafs_as};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn options(text: &str) -> kivafs_mount::life::plan::MountOptions {
    parse_options([text], Unknown::Refuse).unwrap()
}

#[test]
fn options_are_taken() {
    let taken = options("ro,allow_other,cache=1G,inodes=1000,commit=30,dirsync,compress=none,timeout=7,threads=4");
    assert!(taken.read_only);
    assert_eq!(taken.allow_other, Some(true));
    assert_eq!(taken.store.cache_bytes, Some(1 << 30));
    assert_eq!(taken.inodes_max, 1000);
    assert_eq!(taken.commit_interval, Duration::from_secs(30));
    assert_eq!(taken.sync, SyncMode::Names);
    assert_eq!(taken.store.compression, Compression::None);
    assert_eq!((taken.store.timeout, taken.threads), (Duration::from_secs(7), 4));
}

#[test]
fn of_two_that_contradict_the_later_counts() {
    assert!(!options("ro,rw").read_only);
    assert!(options("rw,ro").read_only);
    assert_eq!(options("sync,dirsync").sync, SyncMode::Everything, "sync includes dirsync");
    assert_eq!(options("sync,async").sync, SyncMode::OnRequest);
    assert!(!options("user,dev").kernel.nodev);
    assert!(options("user,dev").kernel.noexec);
}

#[test]
fn what_fstab_may_say_changes_nothing() {
    let usual = options("");
    assert_eq!(options("rw,defaults,noauto,nofail,_netdev,nouser,x-systemd.automount,x-a=b,comment=c,,"), usual);
}

#[test]
fn times_of_access_are_as_the_last_word_says() {
    for (words, times) in [
        ("", AccessTimes::Never),
        ("noatime", AccessTimes::Never),
        ("relatime", AccessTimes::Relative { directories: true }),
        ("relatime,noatime", AccessTimes::Never),
        ("noatime,relatime,nodiratime", AccessTimes::Relative { directories: false }),
        ("relatime,nodiratime,diratime", AccessTimes::Relative { directories: true }),
        ("relatime,lazytime", AccessTimes::Relative { directories: true }),
        ("relatime,ro", AccessTimes::Never),
    ] {
        assert_eq!(options(words).access_times(), times, "{words}");
    }
    let refused = parse_options(["strictatime"], Unknown::Refuse).unwrap_err();
    assert!(refused.contains("relatime"), "{refused}");
    assert!(parse_options(["strictatime"], Unknown::Ignore).is_ok());
}

#[test]
fn a_limit_is_a_size() {
    assert_eq!(options("max_size=10G").store.size_max, Some(10 << 30));
    assert_eq!(options("").store.size_max, None);
    for wrong in ["max_size=", "max_size=0", "max_size=much"] {
        assert!(parse_options([wrong], Unknown::Refuse).is_err(), "{wrong}");
    }
}

#[test]
fn log_is_a_level_or_a_file() {
    assert_eq!((options("log=debug").log, options("log=debug").log_level), (LogPlace::Usual, tracing::Level::DEBUG));
    let taken = options("log=/var/log/kivafs:warn");
    assert_eq!((taken.log, taken.log_level), (LogPlace::File("/var/log/kivafs".into()), tracing::Level::WARN));
    assert_eq!(options("log=/a/b").log, LogPlace::File("/a/b".into()));
    let LogPlace::File(relative) = options("log=./b").log else { panic!() };
    assert!(relative.is_absolute());
}

#[test]
fn a_bad_option_is_named_with_the_valid_ones() {
    for bad in
        ["bogus", "bogus=1", "cache=lots", "threads=0", "threads=65", "compress=zip", "log=loud", "commit=", "ro=1"]
    {
        let said = parse_options(["rw", bad], Unknown::Refuse).unwrap_err();
        assert!(said.contains(bad) && !said.contains('\n'), "{said}");
    }
    let said = parse_options(["bogus"], Unknown::Refuse).unwrap_err();
    assert!(["ro", "cache=SIZE", "log=LEVEL"].iter().all(|valid| said.contains(valid)), "{said}");
    assert!(parse_options(["bogus"], Unknown::Ignore).is_ok());
    assert!(parse_options(["cache=lots"], Unknown::Ignore).is_err(), "known, and wrong");
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_one_line() {
    kivafs(["mont"]).fails(2, &["mont", "kivafs help"]);
    kivafs(["mount", "/store"]).fails(2, &["<DIR>"]);
    kivafs(["create", "/store", "--size", "much"]).fails(2, &["much", "K, M, G"]);
    kivafs(["mount", "/store", "/dir", "-o", "rw,bogus"]).fails(2, &["'bogus'", "cache=SIZE"]);
    kivafs(["mount", "/store", "/dir", "--takeover"]).fails(2, &["--takeover", "local"]);
}

/// Scripts take what mount(8) hands on for its own.
#[test]
fn exit_codes_under_the_names_of_helpers_are_those_of_mount_8() {
    kivafs_as("mount.kivafs", ["/store"]).fails(1, &["usage", "STORE DIR"]);
    kivafs_as("mount.kivafs", ["/store", "/dir", "-o", "bogus"]).fails(1, &["'bogus'"]);
    kivafs_as("/sbin/umount.fuse.kivafs", ["-q", "/dir"]).fails(1, &["-q"]);
    kivafs_as("mount.kivafs", ["/no/such/store", "/usr"]).fails(32, &["no such store"]);
    kivafs_as("umount.kivafs", ["/proc"]).fails(32, &["no kivafs mount"]);
}

#[test]
fn help_and_version_are_for_stdout() {
    for words in [vec!["--help"], vec!["help", "mount"], vec!["--version"], vec!["mount", "--help"]] {
        assert!(kivafs(&words).silently().text().contains("kivafs"));
    }
    for name in ["mount.kivafs", "umount.fuse.kivafs"] {
        assert!(kivafs_as(name, ["-h"]).silently().text().starts_with("usage: "), "{name}");
        assert!(kivafs_as(name, ["-V"]).silently().text().starts_with("kivafs "), "{name}");
    }
    assert!(kivafs(["mount", "--help"]).text().contains("log=/FILE[:LEVEL]"));
    for command in ["create", "mount", "info", "check", "get", "put", "ls", "rm"] {
        assert!(kivafs([command, "--help"]).text().contains("endpoint=URL"), "{command}");
    }
}

#[test]
fn options_for_buckets_are_taken_by_every_command() {
    let text = "endpoint=http://127.0.0.1:7480/,region=eu-north-1,profile=work,path_style,ca=/etc/ca.pem,requests=4,\
                disk_cache=/var/cache/kivafs:10G,unsafe_no_fencing,timeout=7,cache=1G,compress=none";
    let taken = parse_store_options([text]).unwrap();
    let bucket = &taken.bucket;
    assert_eq!(bucket.endpoint.as_deref(), Some("http://127.0.0.1:7480"));
    assert_eq!((bucket.region.as_deref(), bucket.profile.as_deref()), (Some("eu-north-1"), Some("work")));
    assert_eq!((bucket.path_style, bucket.ca_file.as_deref()), (Some(true), Some(Path::new("/etc/ca.pem"))));
    assert_eq!((bucket.requests_max, bucket.unsafe_no_fencing), (4, true));
    assert_eq!(bucket.disk_cache, Some(("/var/cache/kivafs".into(), 10 << 30)));
    assert_eq!((taken.timeout, taken.cache_bytes), (Duration::from_secs(7), Some(1 << 30)));
    assert_eq!(options(&format!("ro,{text}")).store, taken, "the same words for a mount");
    assert_eq!(parse_store_options(["virtual_style,path_style,virtual_style"]).unwrap().bucket.path_style, Some(false));
    let usual = parse_store_options([""]).unwrap();
    assert_eq!((usual.bucket.requests_max, usual.cache_bytes, usual.bucket.path_style), (16, None, None));
}

#[test]
fn a_disk_cache_is_a_directory_and_perhaps_a_size() {
    let cache = |text: &str| parse_store_options([text]).map(|options| options.bucket.disk_cache.unwrap());
    assert_eq!(cache("disk_cache=/a/b").unwrap(), ("/a/b".into(), 4 << 30));
    assert_eq!(cache("disk_cache=/a/b:512M").unwrap(), ("/a/b".into(), 512 << 20));
    assert_eq!(cache("disk_cache=/a:b/c").unwrap().0, Path::new("/a:b/c"), "a name may have a colon");
    assert!(cache("disk_cache=c").unwrap().0.is_absolute());
    for wrong in ["disk_cache=", "disk_cache=:1G", "disk_cache=/a:1X"] {
        assert!(cache(wrong).unwrap_err().contains(wrong), "{wrong}");
    }
}

#[test]
fn a_bad_option_for_buckets_says_what_it_should_be() {
    for (bad, cure) in [
        ("endpoint=", "https://"),
        ("endpoint=localhost:7480", "https://"),
        ("endpoint=https://", "https://"),
        ("endpoint=https://user@host", "https://"),
        ("endpoint=https://host/path", "https://"),
        ("region=", "eu-central-1"),
        ("profile=", "~/.aws"),
        ("requests=0", "1 to 256"),
        ("requests=257", "1 to 256"),
        ("requests=many", "not a number"),
        ("ca=", "path"),
    ] {
        let said = parse_store_options([bad]).unwrap_err();
        assert!(said.contains(bad) && said.contains(cure) && !said.contains('\n'), "{said}");
    }
    let said = parse_store_options(["ro"]).unwrap_err();
    assert!(said.contains("'ro'") && said.contains("endpoint=URL") && !said.contains("inodes"), "{said}");
}

#[test]
fn what_only_buckets_have_is_refused_for_a_file() {
    for command in [&["create", "/store"][..], &["info", "/store"], &["check", "/store"], &["ls", "/store"]] {
        for (option, name) in
            [("endpoint=http://h", "endpoint"), ("disk_cache=/c", "disk_cache"), ("path_style", "path_style")]
        {
            kivafs([command, &["-o", option]].concat()).fails(2, &[name, "only stores in S3", "local"]);
        }
    }
    kivafs(["mount", "/store", "/dir", "-o", "rw,requests=2"]).fails(2, &["requests", "only stores in S3"]);
    for command in [["put", "/store", "path"], ["rm", "/store", "path"], ["mount", "/store", "/dir"]] {
        kivafs([&command[..], &["--takeover"]].concat()).fails(2, &["--takeover", "local"]);
    }
}

#[test]
fn a_bad_url_is_exit_code_2_for_every_command() {
    for words in [
        &["create"][..],
        &["info"],
        &["check"],
        &["ls"],
        &["umount"],
        &["mount", "/dir"],
        &["get", "path"],
        &["put", "path"],
        &["rm", "path"],
    ] {
        for (url, why) in
            [("s3:///x", "a bucket is missing"), ("s3://a b/x", "' '"), ("gs://bucket/x", "no stores in gs")]
        {
            let words = [&[words[0], url], &words[1..]].concat();
            kivafs(words).fails(2, &[url, why, "s3://BUCKET"]);
        }
    }
    kivafs_as("mount.kivafs", ["s3://", "/dir"]).fails(1, &["a bucket is missing"]);
    kivafs_as("umount.kivafs", ["s3://"]).fails(1, &["a bucket is missing"]);
}

#[test]
fn a_bucket_that_is_not_mounted_is_told_by_its_name() {
    kivafs(["umount", "s3://bucket/no-such-prefix/"]).fails(1, &["s3://bucket/no-such-prefix: no kivafs mount"]);
}

#[test]
fn only_requests_have_a_price() {
    let place = Place::new(Medium::File);
    kivafs(["info".as_ref(), "--cost".as_ref(), place.store.as_os_str()]).fails(2, &["--cost", "nothing to price"]);
}

#[test]
fn a_missing_mount_point_is_told_with_its_cure() {
    let place = Place::new(Medium::File);
    std::fs::remove_dir(&place.dir).unwrap();
    place.mount(&[]).fails(1, &["no such directory", "mkdir -p", place.dir.to_str().unwrap()]);
}

#[test]
fn a_mount_point_is_a_directory() {
    let place = Place::new(Medium::File);
    std::fs::remove_dir(&place.dir).unwrap();
    std::fs::write(&place.dir, "").unwrap();
    place.mount(&[]).fails(1, &["not a directory", place.dir.to_str().unwrap()]);
    let below = place.dir.join("below");
    kivafs(["mount".as_ref(), place.store.as_os_str(), below.as_os_str()]).fails(1, &["not a directory"]);
}

#[test]
fn a_mount_never_hides_its_own_store() {
    let place = Place::new(Medium::File);
    let root = place.root();
    kivafs(["mount".as_ref(), place.store.as_os_str(), root.as_os_str()]).fails(1, &["lies inside", "hide"]);
    // By way of a link, too.
    let link = root.join("link");
    std::os::unix::fs::symlink(root, &link).unwrap();
    kivafs(["mount".as_ref(), link.join("store").as_os_str(), link.as_os_str()]).fails(1, &["lies inside"]);
    assert!(place.mounted().is_none());
}

#[test]
fn umount_of_what_is_not_mounted() {
    let place = Place::new(Medium::File);
    place.umount(&[]).fails(1, &["no kivafs mount", place.dir.to_str().unwrap()]);
    place.umount(&["--force"]).fails(1, &["no kivafs mount"]);
    kivafs(["umount", "/proc"]).fails(1, &["no kivafs mount", "/proc"]);
    kivafs(["umount", "/no/such/place"]).fails(1, &["no kivafs mount"]);
}

#[test]
fn fake_mounts_nothing() {
    let place = Place::new(Medium::File);
    let words = [place.store.to_str().unwrap(), place.dir.to_str().unwrap(), "-f", "-n", "-o", "defaults"];
    place.run_as("mount.kivafs", words).silently();
    assert!(place.mounted().is_none());
    assert!(Path::new(&place.store).exists());
}

#[test]
fn a_kernel_without_fuse_is_told_with_its_cure() {
    let place = Place::new(Medium::File);
    // In a mount namespace of its own, /dev has only null.
    let script = "mkdir $3 && mount -t tmpfs none $3 && touch $3/null && mount --bind /dev/null $3/null && \\
                  mount --move $3 /dev && exec \"$0\" mount \"$1\" \"$2\"";
    let said = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, env!("CARGO_BIN_EXE_kivafs")])
        .args([&place.store, &place.dir, &place.root().join("dev")])
        .output()
        .unwrap();
    Said(said).fails(1, &["/dev/fuse", "modprobe fuse"]);
    assert!(place.store.exists());
}

#[test]
fn an_ordinary_user_without_the_helper_is_told_with_its_cure() {
    let place = Place::new(Medium::File);
    let program = place.root().join("kivafs");
    // By another process: one that a test of this program is just starting would keep a file that
    // was open for writing here, and what is open for writing can't be executed.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_kivafs")).arg(&program).status().unwrap().success());
    for path in [place.root(), &place.store, &place.dir, &program] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let mut command = Command::new(&program);
    command.arg("mount").args([&place.store, &place.dir]).uid(65534).gid(65534);
    Said(command.env("PATH", "/nowhere").output().unwrap()).fails(1, &["fusermount3", "fuse3", "root"]);
    assert_eq!(place.mounted(), None);
}
