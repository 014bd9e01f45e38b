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
//! Any user can take any abstract name, so the reader looks who listens: root or the mount's user.

use crate::life::mountinfo::Mount;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
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
    waiting: VecDeque<UnixStream>,
}

/// Those who wait for the verdict of a server that has given up its name.
pub struct Waiting(VecDeque<UnixStream>);

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
        Ok(Verdict { listener, waiting: VecDeque::new() })
    }

    /// Takes in who has connected since. Does not wait.
    pub fn collect(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // A umount that was refused (busy) has hung up.
            self.waiting.retain_mut(
                |stream| matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock),
            );
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_front();
            }
            if stream.set_nonblocking(true).is_ok() {
                self.waiting.push_back(stream);
            }
        }
    }

    /// Gives up the name.
    pub fn leave(mut self) -> Waiting {
        self.collect();
        Waiting(self.waiting)
    }
}

impl Waiting {
    /// Tells everybody.
    pub fn tell(self, verdict: &Result<(), String>) {
        let line = match verdict {
            Ok(()) => DURABLE,
            Err(why) => why,
        };
        for mut stream in self.0 {
            // Who hung up does not want to know.
            let _ = stream.write_all(line.as_bytes());
        }
    }
}

impl AsFd for Verdict {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The end of who waits.
pub struct Waiter {
    stream: UnixStream,
    text: Vec<u8>,
    /// The server's process.
    pub pid: i32,
}

/// What a waiter has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// Everything is durable.
    Durable,
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
        trusted.then(|| Waiter { stream, text: Vec::new(), pid: peer.pid() })
    }

    /// Listens for at most `time`.
    pub fn hear(&mut self, time: Duration) -> Heard {
        if self.stream.set_read_timeout(Some(time)).is_err() {
            return Heard::Died;
        }
        let mut part = [0; 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => break,
                Ok(length) => self.text.extend_from_slice(&part[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Heard::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
        }
        match String::from_utf8_lossy(&self.text).as_ref() {
            DURABLE => Heard::Durable,
            "" => Heard::Died,
            why => Heard::NotDurable(why.to_string()),
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
        Mount { device, dir: "/".into(), fs_type: String::new(), source: "/long".repeat(99).into(), user: None }
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
        waiting.tell(&Err("the disk is full".into()));
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
}
