//! How who waits for a mount's end learns how it went.
//!
//! The server listens on an abstract socket named after the mount's device and store. Who unmounts connects
//! first, then unmounts, then reads: the server writes the verdict after its store is closed. A
//! connection that ends without one means that the server died. Nothing is left behind by a crash.
//!
//! The kernel gives a device's number to the next mount as soon as the mount is gone, and the
//! server may still drain for long. So a server gives up the name as soon as its session is over,
//! keeping who has connected; and a new server waits a moment for a name that is still taken.
//!
//! Who waits may say something, too, a byte at a time: `?` asks how far it is, `!` asks not to wait
//! for storage that does not answer. The server answers in lines: `wait BYTES SECONDS` (still to
//! go, and without an answer), or `serving` if what was unmounted is not all there is, and in the end `durable`, `durable REQUESTS` or `not durable: WHY`.
//!
//! Any user can take any abstract name, so the reader looks who listens: root or the mount's user.
//! Any user can connect, too, so only root and the server's own user are given up for.

use crate::life::drain::Backlog;
use crate::life::mountinfo::Mount;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Most connections kept; of more, the oldest are dropped: nobody can use up our descriptors.
const WAITING_MAX: usize = 64;

const DURABLE: &str = "durable";
const NOT_DURABLE: &str = "not durable: ";
const WAIT: &str = "wait ";
const SERVING: &str = "serving";
const HOW_FAR: u8 = b'?';
const BY_FORCE: u8 = b'!';

/// Most bytes of a store's path in a name, which has room for 107 in all.
const SOURCE_BYTES_MAX: usize = 72;

/// Both ends take it from the list of mounts. Of a long path the end: it tells more.
fn address(mount: &Mount) -> std::io::Result<SocketAddr> {
    let source = mount.source.as_bytes();
    let mut name = format!("kivafs/{}:{}", mount.device.major, mount.device.minor).into_bytes();
    name.extend_from_slice(&source[source.len().saturating_sub(SOURCE_BYTES_MAX)..]);
    SocketAddr::from_abstract_name(name)
}

/// How long to wait for a name.
const NAME_WAIT_MAX: Duration = Duration::from_secs(2);

/// The server's end, while it serves.
pub struct Verdict {
    listener: UnixListener,
    waiting: Waiting,
}

/// Those who wait for the verdict.
#[derive(Default)]
pub struct Waiting {
    callers: VecDeque<Caller>,
    forced: bool,
}

struct Caller {
    stream: UnixStream,
    /// May say what is given up.
    trusted: bool,
    /// Wants to know how far it is.
    asks: bool,
}

impl Verdict {
    /// Listens.
    pub fn listen(mount: &Mount) -> std::io::Result<Verdict> {
        let since = Instant::now();
        let listener = loop {
            match UnixListener::bind_addr(&address(mount)?) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && since.elapsed() < NAME_WAIT_MAX => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                bound => break bound?,
            }
        };
        listener.set_nonblocking(true)?;
        Ok(Verdict { listener, waiting: Waiting::default() })
    }

    /// Takes in who has connected since, and what was said. Does not wait.
    pub fn collect(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // Those who have hung up make room.
            self.waiting.hear();
            self.waiting.take_in(stream);
        }
        self.waiting.hear();
    }

    /// Answers those who have asked how far it is: nowhere, it is still mounted.
    pub fn answer_serving(&mut self) {
        self.waiting.answer_with(&format!("{SERVING}\n"));
    }

    /// Has somebody who may do so asked not to wait for storage?
    pub fn is_forced(&self) -> bool {
        self.waiting.is_forced()
    }

    /// Readable when there is something to collect.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.waiting.descriptors())
    }

    /// Gives up the name.
    pub fn leave(mut self) -> Waiting {
        self.collect();
        self.waiting
    }
}

impl Waiting {
    fn take_in(&mut self, stream: UnixStream) {
        let peer = getsockopt(&stream, PeerCredentials);
        let trusted = peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw());
        if self.callers.len() == WAITING_MAX {
            self.callers.pop_front();
        }
        if stream.set_nonblocking(true).is_ok() {
            self.callers.push_back(Caller { stream, trusted, asks: false });
        }
    }

    /// Takes in what was said. Does not wait.
    pub fn hear(&mut self) {
        let forced = &mut self.forced;
        // A umount that was refused (busy), or interrupted, has hung up.
        self.callers.retain_mut(|caller| {
            let mut said = [0; 64];
            match caller.stream.read(&mut said) {
                Ok(length) => {
                    caller.asks |= said[..length].contains(&HOW_FAR);
                    *forced |= caller.trusted && said[..length].contains(&BY_FORCE);
                    length > 0
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
    }

    /// Has somebody who may do so asked not to wait for storage?
    pub fn is_forced(&self) -> bool {
        self.forced
    }

    /// Readable when there is something to hear.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.callers.iter().map(|caller| caller.stream.as_fd())
    }

    /// Answers those who have asked how far it is: once for each time, so that somebody who does
    /// not read can't fill the line on which the verdict is to come.
    pub fn answer(&mut self, backlog: Backlog) {
        self.answer_with(&format!("{WAIT}{} {}\n", backlog.bytes, backlog.silent.as_secs()));
    }

    fn answer_with(&mut self, line: &str) {
        for caller in self.callers.iter_mut().filter(|caller| caller.asks) {
            // Who hung up is found when next heard.
            let _ = caller.stream.write_all(line.as_bytes());
            caller.asks = false;
        }
    }

    /// Tells everybody: all is durable (and which requests that took of a bucket), or why not.
    pub fn tell(self, verdict: Result<Option<&str>, &str>) {
        let line = match verdict {
            Ok(None) => format!("{DURABLE}\n"),
            Ok(Some(requests)) => format!("{DURABLE} {requests}\n"),
            Err(why) => format!("{NOT_DURABLE}{}\n", why.replace('\n', " ")),
        };
        for mut caller in self.callers {
            // Who hung up does not want to know.
            let _ = caller.stream.write_all(line.as_bytes());
        }
    }
}

/// The end of who waits.
pub struct Waiter {
    stream: UnixStream,
    text: Vec<u8>,
    /// How far it is was asked, and not answered yet.
    asked: bool,
    /// The server's process.
    pub pid: i32,
}

/// What a waiter has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// How far it is.
    Waits(Backlog),
    /// It is still mounted, elsewhere, and goes on.
    Serves,
    /// Everything is durable; and the requests that were made of the store's bucket, if it is in one.
    Durable(Option<String>),
    /// Not everything is, and why.
    NotDurable(String),
    /// The server ended without a word.
    Died,
}

impl Waiter {
    /// Connects to the server of `mount`; `None` if there is none that can be trusted.
    pub fn connect(mount: &Mount) -> Option<Waiter> {
        let stream = UnixStream::connect_addr(&address(mount).ok()?).ok()?;
        let peer = getsockopt(&stream, PeerCredentials).ok()?;
        let trusted = peer.uid() == 0 || Some(peer.uid()) == mount.user;
        trusted.then(|| Waiter { stream, text: Vec::new(), asked: false, pid: peer.pid() })
    }

    /// Asks how far it is, unless that is yet to be answered.
    pub fn ask(&mut self) {
        if !self.asked {
            self.say(HOW_FAR);
            self.asked = true;
        }
    }

    /// Asks not to wait for storage that does not answer.
    pub fn force(&mut self) {
        self.say(BY_FORCE);
    }

    fn say(&mut self, byte: u8) {
        // A server that is gone is noticed by who listens for it.
        let _ = self.stream.write_all(&[byte]);
    }

    /// Listens for at most `time`.
    pub fn hear(&mut self, time: Duration) -> Heard {
        if self.stream.set_read_timeout(Some(time)).is_err() {
            return Heard::Died;
        }
        let mut part = [0; 1024];
        loop {
            if let Some(length) = self.text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=length).collect();
                return self.understand(&String::from_utf8_lossy(&line[..length]));
            }
            match self.stream.read(&mut part) {
                Ok(0) => return Heard::Died,
                Ok(length) => self.text.extend_from_slice(&part[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Heard::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Heard::Died,
            }
        }
    }

    fn understand(&mut self, line: &str) -> Heard {
        if let Some(words) = line.strip_prefix(WAIT) {
            self.asked = false;
            let mut numbers = words.split(' ').map(|word| word.parse().unwrap_or(0));
            let mut next = || numbers.next().unwrap_or(0);
            return Heard::Waits(Backlog { bytes: next(), silent: Duration::from_secs(next()) });
        }
        if line == SERVING {
            self.asked = false;
            return Heard::Serves;
        }
        match line.strip_prefix(DURABLE) {
            Some("") => Heard::Durable(None),
            Some(requests) => Heard::Durable(Some(requests.trim_start().to_string())),
            None => Heard::NotDurable(line.strip_prefix(NOT_DURABLE).unwrap_or(line).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::mountinfo::Device;

    fn mount(minor: u32) -> Mount {
        // No device has such a number, so that a test meets no mount of this machine.
        let device = Device { major: u32::MAX, minor };
        Mount {
            device,
            dir: "/".into(),
            fs_type: String::new(),
            source: "/long".repeat(99).into(),
            user: None,
            noatime: false,
        }
    }

    #[test]
    fn every_waiter_hears_the_verdict() {
        let mount = mount(std::process::id());
        let verdict = Verdict::listen(&mount).unwrap();
        let mut waiters: Vec<Waiter> = (0..3).map(|_| Waiter::connect(&mount).unwrap()).collect();
        assert_eq!(waiters[0].hear(Duration::from_millis(1)), Heard::Nothing);
        let waiting = verdict.leave();
        // The name is free for the next, whatever the verdict.
        assert!(Waiter::connect(&mount).is_none());
        let _next = Verdict::listen(&mount).unwrap();
        waiting.tell(Err("the disk is full"));
        for waiter in &mut waiters {
            assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::NotDurable("the disk is full".into()));
        }
    }

    #[test]
    fn a_server_that_dies_is_no_good_news() {
        let mount = mount(std::process::id().wrapping_neg());
        assert!(Waiter::connect(&mount).is_none());
        let mut verdict = Verdict::listen(&mount).unwrap();
        let mut waiter = Waiter::connect(&mount).unwrap();
        verdict.collect();
        drop(verdict);
        assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::Died);
    }

    #[test]
    fn who_asks_is_told_how_far_it_is_once_for_each_time() {
        let mount = mount(std::process::id() ^ 1 << 30);
        let verdict = Verdict::listen(&mount).unwrap();
        let (mut asks, mut waits) = (Waiter::connect(&mount).unwrap(), Waiter::connect(&mount).unwrap());
        asks.ask();
        asks.ask();
        let mut waiting = verdict.leave();
        let backlog = |bytes| Backlog { bytes, silent: Duration::from_secs(30) };
        for bytes in 1..9 {
            waiting.hear();
            waiting.answer(backlog(bytes));
        }
        assert_eq!(asks.hear(Duration::from_secs(9)), Heard::Waits(backlog(1)));
        assert_eq!(asks.hear(Duration::from_millis(1)), Heard::Nothing);
        asks.ask();
        waiting.hear();
        waiting.answer(backlog(9));
        waiting.tell(Ok(Some("1 PUT")));
        assert_eq!(asks.hear(Duration::from_secs(9)), Heard::Waits(backlog(9)));
        for waiter in [&mut asks, &mut waits] {
            assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::Durable(Some("1 PUT".into())));
            assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::Died);
        }
    }

    #[test]
    fn who_asks_of_a_mount_that_goes_on_is_told_so() {
        let mount = mount(std::process::id() ^ 1 << 28);
        let mut verdict = Verdict::listen(&mount).unwrap();
        let mut waiter = Waiter::connect(&mount).unwrap();
        waiter.ask();
        verdict.collect();
        verdict.answer_serving();
        verdict.answer_serving();
        assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::Serves);
        assert_eq!(waiter.hear(Duration::from_millis(1)), Heard::Nothing, "once for each time");
        verdict.leave().tell(Ok(None));
        assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::Durable(None));
    }

    #[test]
    fn force_is_heard_before_and_after_the_name_is_given_up() {
        let mount = mount(std::process::id() ^ 1 << 29);
        for early in [true, false] {
            let mut verdict = Verdict::listen(&mount).unwrap();
            let mut waiter = Waiter::connect(&mount).unwrap();
            verdict.collect();
            assert!(!verdict.is_forced());
            if early {
                waiter.force();
                verdict.collect();
                assert!(verdict.is_forced());
            }
            let mut waiting = verdict.leave();
            waiter.force();
            waiting.hear();
            assert!(waiting.is_forced());
            waiting.tell(Ok(None));
            assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::Durable(None));
        }
    }
}
