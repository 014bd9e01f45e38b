//! What a service manager is told, over a real socket. Needs root and /dev/fuse; fails without.

#[allow(dead_code, reason = "each test program uses its part")]
mod line;
mod place;

use line::Line;
use nix::sys::signal::Signal;
use place::{Foreground, Medium, Place, ceph::ceph, on_each_medium, until};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

on_each_medium!(
    a_mount_in_the_foreground_says_when_it_is_ready_and_when_it_ends,
    keys_without_a_mount_say_so_too,
    a_mount_that_fails_is_never_ready,
    a_mount_in_the_background_says_nothing,
);

/// The service manager's socket.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// All commands of the place find it from now on.
    fn of(place: &mut Place) -> Manager {
        let path = place.root().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        place.set("NOTIFY_SOCKET", path.to_str().unwrap());
        Manager { socket }
    }

    /// The next message, line by line.
    fn hears(&self) -> Vec<String> {
        self.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut text = [0; 4096];
        let length = self.socket.recv(&mut text).expect("a message within half a minute");
        String::from_utf8_lossy(&text[..length]).lines().map(str::to_string).collect()
    }

    /// What has come by now.
    fn has_heard(&self) -> Option<Vec<String>> {
        self.socket.set_nonblocking(true).unwrap();
        let mut text = [0; 4096];
        match self.socket.recv(&mut text) {
            Ok(length) => Some(String::from_utf8_lossy(&text[..length]).lines().map(str::to_string).collect()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// It is about to end, and wants time for that.
    #[track_caller]
    fn hears_the_end(&self) {
        let said = self.hears();
        assert_eq!(said[0], "STOPPING=1");
        assert!(microseconds(&said) >= 30_000_000, "{said:?}");
    }
}

fn microseconds(said: &[String]) -> u64 {
    let time = said.iter().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    time.unwrap_or_else(|| panic!("{said:?}")).parse().unwrap()
}

fn start(place: &Place, words: &[&str]) -> Foreground {
    Foreground(place.command(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
}

fn start_mount(place: &Place) -> Foreground {
    start(place, &["mount", "-f", place.name(), place.dir.to_str().unwrap()])
}

fn a_mount_in_the_foreground_says_when_it_is_ready_and_when_it_ends(medium: Medium) {
    let mut place = Place::new(medium);
    let manager = Manager::of(&mut place);
    let server = start_mount(&place);
    assert_eq!(manager.hears(), ["READY=1"]);
    // Not before it is usable.
    assert!(place.mounted().is_some());
    std::fs::write(place.dir.join("file"), "content").unwrap();
    server.signal(Signal::SIGTERM);
    manager.hears_the_end();
    assert_eq!(server.end().code(), 0);
    // An umount ends it just so.
    let server = start_mount(&place);
    while manager.hears() != ["READY=1"] {}
    assert_eq!(std::fs::read(place.dir.join("file")).unwrap(), b"content");
    place.umounts();
    manager.hears_the_end();
    assert_eq!(server.end().code(), 0);
}

fn keys_without_a_mount_say_so_too(medium: Medium) {
    let mut place = Place::new(medium);
    let manager = Manager::of(&mut place);
    let socket = place.root().join("keys");
    let server = start(&place, &["serve", place.name(), "--kvlds", socket.to_str().unwrap()]);
    assert_eq!(manager.hears(), ["READY=1"]);
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    server.signal(Signal::SIGTERM);
    manager.hears_the_end();
    assert_eq!(server.end().code(), 0);
}

fn a_mount_that_fails_is_never_ready(medium: Medium) {
    let mut place = Place::bare(medium);
    let manager = Manager::of(&mut place);
    assert_eq!(start_mount(&place).end().code(), 1);
    assert_eq!(manager.has_heard(), None);
}

/// Whose service manager it is decides who started it.
fn a_mount_in_the_background_says_nothing(medium: Medium) {
    let mut place = Place::new(medium);
    let manager = Manager::of(&mut place);
    place.mount(&[]).silently();
    place.umount(&[]);
    until("the server is gone", || place.servers().is_empty());
    assert_eq!(manager.has_heard(), None);
}

#[test]
fn a_drain_that_lasts_asks_for_time_again_and_again() {
    let line = Line::to(&ceph().endpoint);
    let mut place = Place::new(Medium::Bucket);
    place.set("AWS_ENDPOINT_URL", &line.endpoint);
    let manager = Manager::of(&mut place);
    let server = start_mount(&place);
    assert_eq!(manager.hears(), ["READY=1"]);
    line.cut();
    std::fs::write(place.dir.join("file"), "content").unwrap();
    place.umount_without_waiting();
    manager.hears_the_end();
    for _ in 0..2 {
        let said = manager.hears();
        assert!(microseconds(&said) >= 30_000_000, "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("STATUS=making everything durable")), "{said:?}");
    }
    line.mend();
    assert_eq!(server.end().code(), 0);
    assert_eq!(place.on_store("get", &["/file"]).silently().text(), "content");
}
