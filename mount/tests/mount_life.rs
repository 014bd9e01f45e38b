//! Real mounts, from their beginning to their end. Needs root and /dev/fuse; fails without.

mod place;

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::signal::{Signal, kill};
use place::{Medium, Place, on_each_medium, until};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

on_each_medium!(
    mount_is_usable_when_the_command_returns_and_gone_when_umount_does,
    a_server_keeps_nothing_of_its_caller,
    flags_are_those_asked_for,
    a_read_only_store_stays_so_when_it_is_remounted,
    the_helper_names_mount_remount_and_umount,
    what_remount_does_not_change_is_told,
    a_store_that_is_mounted_twice_is_served_until_the_second_umount,
    a_store_that_is_read_cannot_be_written_and_the_reader_is_named,
    a_second_mount_for_reading_does_not_hide_the_first,
    who_holds_what_was_detached_is_told,
    umount_takes_the_store_for_its_mount,
    a_mount_point_that_is_not_empty_is_a_warning,
    umount_of_a_busy_mount_is_refused_and_changes_nothing,
    a_forced_umount_ends_what_is_open,
    foreground_stays_until_unmounted,
    signals_end_a_mount_in_order,
    after_a_signal_open_files_are_served_for_a_while,
    a_second_signal_does_not_wait_for_open_files,
    a_dead_mount_is_detached_and_that_is_said,
    mounting_over_a_dead_mount_detaches_it_and_says_so,
    a_server_that_dies_while_it_drains_is_no_success,
    umount_then_mount_never_loses_the_new_mount_under_load,
    what_a_program_opens_directly_works,
    a_write_takes_set_user_id_away_also_in_the_kernel,
    sync_mounts_work,
    the_log_goes_where_it_is_told_to,
    a_mount_becomes_read_only_once_nobody_writes_and_is_durable_then,
    what_a_remount_does_not_change_is_said,
);

fn mount_is_usable_when_the_command_returns_and_gone_when_umount_does(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    assert_eq!(place.mounted().unwrap().fs_type, "fuse.kivafs");
    std::fs::write(place.dir.join("file"), "content").unwrap();
    assert_eq!(std::fs::read(place.dir.join("file")).unwrap(), b"content");
    place.umounts();
    assert_eq!(place.mounted(), None);
    until("the server is gone", || place.servers().is_empty());
}

fn a_server_keeps_nothing_of_its_caller(medium: Medium) {
    let place = Place::new(medium);
    let (mut reader, writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    // stderr is inherited by the server until it is ready.
    let mut command = place.command(["mount".as_ref(), place.store.as_os_str(), place.dir.as_os_str()]);
    let command = command.stderr(writer.try_clone().unwrap());
    assert!(command.status().unwrap().success());
    // The builder holds its copy for as long as it lives.
    *command = std::process::Command::new("true");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "", "and the pipe is closed, though the mount lasts");
    let server = place.server().unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{server}/cwd")).unwrap(), std::path::Path::new("/"));
    assert_eq!(std::fs::read_to_string(format!("/proc/{server}/comm")).unwrap(), "kivafs\n");
}

fn flags_are_those_asked_for(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&["-o", "ro,noexec,dev"]).silently();
    let line = place.mounted().unwrap().line;
    assert!(line.contains(" ro,nosuid,noexec") && !line.contains("nodev"), "{line}");
    assert!(line.contains("default_permissions,allow_other"), "{line}");
    assert!(line.contains(place.name()), "{line}");
    let refused = std::fs::write(place.dir.join("file"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EROFS));
    place.umounts();
    place.mount(&["-o", "root_only"]).silently();
    assert!(!place.mounted().unwrap().line.contains("allow_other"));
}

/// The store was opened for reading only, whatever the kernel is told later.
fn a_read_only_store_stays_so_when_it_is_remounted(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let (old, dir) = (place.dir.join("old"), place.dir.join("dir"));
    std::fs::write(&old, "content").unwrap();
    std::fs::create_dir(&dir).unwrap();
    place.umounts();
    place.mount(&["-o", "ro"]).silently();
    place.mount(&["-o", "remount,rw"]).silently();
    assert!(place.mounted().unwrap().line.contains(" rw,"));
    let new = place.dir.join("new");
    let mut open = File::options().append(true).open(&old).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    let refused: [(&str, std::io::Result<()>); 10] = [
        ("create", File::create_new(&new).map(drop)),
        ("truncate", std::fs::write(&old, "")),
        ("write", open.write_all(b"more")),
        ("set length", open.set_len(1)),
        ("mkdir", std::fs::create_dir(&new)),
        ("rmdir", std::fs::remove_dir(&dir)),
        ("unlink", std::fs::remove_file(&old)),
        ("rename", std::fs::rename(&old, &new)),
        ("link", std::fs::hard_link(&old, &new)),
        ("chmod", std::fs::set_permissions(&old, mode)),
    ];
    for (what, done) in refused {
        assert_eq!(done.map_err(|error| error.raw_os_error()), Err(Some(nix::libc::EROFS)), "{what}");
    }
    open.sync_all().unwrap();
    drop(open);
    assert_eq!(std::fs::read(&old).unwrap(), b"content");
    place.umounts();
}

fn the_helper_names_mount_remount_and_umount(medium: Medium) {
    let place = Place::new(medium);
    let (store, dir) = (place.name(), place.dir.to_str().unwrap());
    place.run_as("mount.kivafs", [store, dir, "-s", "-o", "rw,bogus,nofail,x-a"]).silently();
    assert!(place.mounted().unwrap().line.contains(" rw,"));
    // As mount(8) does: with all that the list of mounts shows.
    let line = place.mounted().unwrap().line;
    let (first, last) = (line.split(' ').nth(5).unwrap(), line.rsplit(' ').next().unwrap());
    let shown: Vec<&str> = first.split(',').chain(last.split(',')).filter(|word| *word != "rw").collect();
    assert!(["nosuid", "nodev", "noatime", "user_id=0", "default_permissions"].iter().all(|word| shown.contains(word)));
    let shown = format!("remount,ro,{}", shown.join(","));
    place.run_as("mount.fuse.kivafs", [store, dir, "-o", &shown]).silently();
    assert!(place.mounted().unwrap().line.contains(" ro,"));
    place.run_as("umount.kivafs", [dir]).silently();
    assert_eq!(place.mounted(), None);
}

fn what_remount_does_not_change_is_told(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    place.mount(&["-o", "remount,ro,noexec"]).silently();
    assert!(place.mounted().unwrap().line.contains(" ro,nosuid,nodev,noexec"));
    let said = place.mount(&["-o", "remount,rw,sync"]);
    assert_eq!((said.code(), said.errors().lines().count()), (0, 1));
    assert!(said.errors().contains("a remount does not change"), "{}", said.errors());
    assert!(place.mounted().unwrap().line.contains(" rw,"));
}

fn a_store_that_is_mounted_twice_is_served_until_the_second_umount(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let other = place.elsewhere();
    let bind = || nix::mount::mount(Some(&place.dir), &other.dir, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    bind().unwrap();
    place.umount(&[]).fails(1, &["still mounted at", other.dir.to_str().unwrap()]);
    assert_eq!(place.mounted(), None);
    std::fs::write(other.dir.join("file"), "content").unwrap();
    let again = nix::mount::mount(Some(&other.dir), &place.dir, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    again.unwrap();
    // umount(8) has no such failure: what it was asked for is done.
    place.run_as("umount.kivafs", [other.dir.to_str().unwrap()]).silently();
    assert_eq!(std::fs::read(place.dir.join("file")).unwrap(), b"content");
    place.umounts();
    until("the server is gone", || place.servers().is_empty());
}

fn a_store_that_is_read_cannot_be_written_and_the_reader_is_named(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&["-o", "ro"]).silently();
    let other = place.elsewhere();
    match medium {
        Medium::File => {
            other.mount(&[]).fails(3, &["for reading", place.dir.to_str().unwrap(), "unmount"]);
        }
        // There readers are in nobody's way.
        Medium::Bucket => drop(other.mount(&[]).silently()),
    }
}

fn a_second_mount_for_reading_does_not_hide_the_first(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&["-o", "ro"]).silently();
    place.mount(&["-o", "ro"]).fails(3, &["mounted at", "already"]);
    place.umounts();
    assert_eq!(place.mounted(), None);
}

fn who_holds_what_was_detached_is_told(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let server = place.server().unwrap();
    let mut file = File::create(place.dir.join("open")).unwrap();
    umount2(&place.dir, MntFlags::MNT_DETACH).unwrap();
    place.mount(&[]).fails(3, &["detached", &format!("pid {server}"), &format!("kill {server}")]);
    file.write_all(b"still served").unwrap();
}

fn umount_takes_the_store_for_its_mount(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    place::kivafs(["umount".as_ref(), place.store.as_os_str()]).silently();
    assert_eq!(place.mounted(), None);
}

fn a_mount_point_that_is_not_empty_is_a_warning(medium: Medium) {
    let place = Place::new(medium);
    std::fs::write(place.dir.join("below"), "").unwrap();
    let said = place.mount(&[]);
    assert_eq!(said.code(), 0);
    assert!(said.errors().contains("not empty") && said.errors().lines().count() == 1, "{}", said.errors());
    assert!(place.mounted().is_some());
}

fn umount_of_a_busy_mount_is_refused_and_changes_nothing(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let mut file = File::create(place.dir.join("open")).unwrap();
    place.umount(&[]).fails(1, &["busy", "--force"]);
    file.write_all(b"still here").unwrap();
    drop(file);
    place.umounts();
}

fn a_forced_umount_ends_what_is_open(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let mut file = File::create(place.dir.join("open")).unwrap();
    place.umount(&["--force"]).silently();
    assert_eq!(place.mounted(), None);
    assert!(file.write_all(b"too late").is_err());
    until("the server is gone", || place.servers().is_empty());
}

fn foreground_stays_until_unmounted(medium: Medium) {
    let place = Place::new(medium);
    let server = place.mount_in_foreground(&[]);
    std::fs::write(place.dir.join("file"), "content").unwrap();
    place.umounts();
    let said = server.end();
    assert_eq!(said.code(), 0);
    assert!(said.errors().contains("mounted at") && said.errors().contains("durable"), "{}", said.errors());
}

fn signals_end_a_mount_in_order(medium: Medium) {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::new(medium);
        let server = place.mount_in_foreground(&[]);
        server.signal(signal);
        assert_eq!(server.end().code(), 0);
        assert_eq!(place.mounted(), None);
    }
}

fn after_a_signal_open_files_are_served_for_a_while(medium: Medium) {
    let place = Place::new(medium);
    let server = place.mount_in_foreground(&[]);
    let mut file =
        File::options().create(true).truncate(true).read(true).write(true).open(place.dir.join("f")).unwrap();
    server.signal(Signal::SIGTERM);
    until("the mount is detached", || place.mounted().is_none());
    file.write_all(b"late, but in time").unwrap();
    file.sync_all().unwrap();
    file.rewind().unwrap();
    let mut read = String::new();
    file.read_to_string(&mut read).unwrap();
    assert_eq!(read, "late, but in time");
    drop(file);
    assert_eq!(server.end().code(), 0);
}

fn a_second_signal_does_not_wait_for_open_files(medium: Medium) {
    let place = Place::new(medium);
    let server = place.mount_in_foreground(&[]);
    let mut file = File::create(place.dir.join("f")).unwrap();
    server.signal(Signal::SIGTERM);
    until("the mount is detached", || place.mounted().is_none());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), 0);
    assert!(file.write_all(b"too late").is_err());
}

fn a_dead_mount_is_detached_and_that_is_said(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    kill(place.server().unwrap(), Signal::SIGKILL).unwrap();
    until("the mount is dead", || std::fs::metadata(&place.dir).is_err());
    place.umount(&[]).fails(1, &["was dead", "detached", "lost"]);
    assert_eq!(place.mounted(), None);
}

fn mounting_over_a_dead_mount_detaches_it_and_says_so(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let dead = place.mounted().unwrap();
    kill(place.server().unwrap(), Signal::SIGKILL).unwrap();
    until("the mount is dead", || std::fs::metadata(&place.dir).is_err());
    let said = place.mount(&[]);
    assert_eq!(said.code(), 0, "{}", said.errors());
    assert!(said.errors().contains("detached a dead mount"), "{}", said.errors());
    assert!(std::fs::metadata(&place.dir).is_ok());
    place.umounts();
    assert_eq!(place.mounted(), None, "{dead:?} does not come to light again");
}

fn a_server_that_dies_while_it_drains_is_no_success(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let pid = place.server().unwrap();
    // Stopped, it can't end its drain.
    kill(pid, Signal::SIGSTOP).unwrap();
    let mut umount =
        place.command(["umount".as_ref(), place.dir.as_os_str()]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("it is unmounted", || place.mounted().is_none());
    assert!(umount.try_wait().unwrap().is_none(), "it waits for the verdict");
    kill(pid, Signal::SIGKILL).unwrap();
    let said = place::Said(umount.wait_with_output().unwrap());
    said.fails(1, &["not known", "died"]);
}

/// The moment that loses mounts: the old server ends while the new mount already stands.
fn umount_then_mount_never_loses_the_new_mount_under_load(medium: Medium) {
    const ROUNDS: usize = 20;
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let (ending, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (place, ending, done) = (&place, &ending, &done);
            scope.spawn(move || {
                let path = place.dir.join(format!("load-{number}"));
                while !ending.load(Ordering::Relaxed) {
                    // A moment with nothing open, so that umount gets its chance.
                    std::thread::sleep(std::time::Duration::from_micros(500));
                    // Between two mounts this fills the directory below: it is removed at once.
                    if std::fs::write(&path, [7; 10_000]).and_then(|()| std::fs::remove_file(&path)).is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let result = std::panic::catch_unwind(|| {
            for round in 0..ROUNDS {
                let before = place.mounted().unwrap();
                let old = place.server().unwrap();
                let worked = done.load(Ordering::Relaxed);
                until("the load works", || done.load(Ordering::Relaxed) > worked + 10);
                until("nothing is open for a moment", || umount2(&place.dir, MntFlags::empty()).is_ok());
                let said = place.mount(&[]);
                assert_eq!(said.code(), 0, "round {round}: {}", said.errors());
                until("the old server is gone", || !place.servers().contains(&old));
                let now = place.mounted().unwrap_or_else(|| panic!("round {round}: the new mount is lost"));
                assert_eq!(now.fs_type, before.fs_type, "round {round}");
                assert!(std::fs::metadata(&place.dir).is_ok(), "round {round}: the new mount is dead");
            }
        });
        ending.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    place.umounts();
}

fn what_a_program_opens_directly_works(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("direct");
    std::fs::write(&path, vec![9u8; 8192]).unwrap();
    let flags = nix::libc::O_DIRECT;
    let file = std::os::unix::fs::OpenOptionsExt::custom_flags(File::options().read(true), flags).open(&path).unwrap();
    let layout = std::alloc::Layout::from_size_align(4096, 4096).unwrap();
    // SAFETY: the layout is not empty; the block is freed with the same layout below.
    let block = unsafe { std::alloc::alloc_zeroed(layout) };
    // SAFETY: the block has 4096 bytes, which nobody else uses.
    let read = unsafe { nix::libc::pread(file.as_raw_fd(), block.cast(), 4096, 4096) };
    // SAFETY: the kernel has written to all 4096 bytes, or the assertion fails first.
    assert!(read == 4096 && unsafe { std::slice::from_raw_parts(block, 4096) } == [9; 4096]);
    // SAFETY: made above with this layout, not used any more.
    unsafe { std::alloc::dealloc(block, layout) };
}

/// stat(1) that wants the mode alone is answered from what the kernel keeps.
fn a_write_takes_set_user_id_away_also_in_the_kernel(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("program");
    for round in 0..20 {
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o6777)).unwrap();
        let mode = |user: u32, script: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]).arg(&path);
            let said = place::Said(std::os::unix::process::CommandExt::uid(&mut command, user).output().unwrap());
            said.silently().text().trim().to_string()
        };
        assert_eq!(mode(0, "echo >> $0; stat -c %a $0"), "6777", "root may keep it, round {round}");
        std::fs::set_permissions(place.root(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(mode(65534, "echo >> $0; stat -c %a $0"), "777", "round {round}");
    }
}

fn sync_mounts_work(medium: Medium) {
    for word in ["sync", "dirsync"] {
        let place = Place::new(medium);
        place.mount(&["-o", word]).silently();
        let (a, b) = (place.dir.join("a"), place.dir.join("b"));
        std::fs::write(&a, "content").unwrap();
        std::fs::rename(&a, &b).unwrap();
        assert_eq!(std::fs::read(&b).unwrap(), b"content");
        std::fs::remove_file(&b).unwrap();
        place.umounts();
    }
}

fn the_log_goes_where_it_is_told_to(medium: Medium) {
    let place = Place::new(medium);
    let log = place.root().join("log");
    place.mount(&["-o", &format!("log={}:info", log.display())]).silently();
    place.umounts();
    until("the end is in the log", || std::fs::read_to_string(&log).unwrap().contains("everything is durable"));
}

fn a_mount_becomes_read_only_once_nobody_writes_and_is_durable_then(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&["-o", "commit=3600"]).silently();
    let (path, dir) = (place.dir.join("file"), place.dir.to_str().unwrap());
    let mut open = File::create(&path).unwrap();
    open.write_all(b"content").unwrap();
    place.mount(&["-o", "remount,ro"]).fails(1, &[dir, "busy", "open for writing", "fuser"]);
    open.write_all(b" and more").unwrap();
    drop(open);
    // A file that a test has closed may still be open for a moment: see `Place::umounts`.
    until("nobody writes", || place.mount(&["-o", "remount,ro"]).code() == 0);
    assert!(place.mounted().unwrap().line.contains(" ro,"));
    let refused = std::fs::write(&path, "").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EROFS));
    // And back: nothing that was there is lost, and there may be more.
    place.mount(&["-o", "remount,rw"]).silently();
    std::fs::write(place.dir.join("next"), "next").unwrap();
    until("nobody writes", || place.mount(&["-o", "remount,ro"]).code() == 0);
    kill(place.server().unwrap(), Signal::SIGKILL).unwrap();
    until("the mount is dead", || std::fs::metadata(&place.dir).is_err());
    assert_eq!(place.mount(&[]).code(), 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"content and more");
    assert_eq!(std::fs::read(place.dir.join("next")).unwrap(), b"next");
    place.umounts();
}

fn what_a_remount_does_not_change_is_said(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&["-o", "relatime"]).silently();
    let said = place.mount(&["-o", "remount,noexec,cache=1G,commit=7,inodes=9"]);
    assert_eq!((said.code(), said.errors().lines().count()), (0, 1), "{}", said.errors());
    for word in ["cache", "commit", "inodes", "mount it again"] {
        assert!(said.errors().contains(word), "{word}: {}", said.errors());
    }
    let line = place.mounted().unwrap().line;
    assert!(line.contains("noexec") && line.contains("relatime"), "{line}");
    place.umounts();
    place.mount(&[]).silently();
    let said = place.mount(&["-o", "remount,relatime"]);
    assert!(said.code() == 0 && said.errors().contains("relatime"), "{}", said.errors());
    assert!(place.mounted().unwrap().line.contains("noatime"));
    place.umounts();
}
