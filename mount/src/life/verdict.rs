//! How who waits for a mount's end learns how it went.
//!
//! The server listens on an abstract socket named after the mount's device. Who unmounts connects
//! first, then unmounts, then reads: the server writes the verdict after its store is closed. A
//! connection that ends without one means that the server died. Nothing is left behind by a crash,
//! and a name is never that of two mounts at a time.
//!
//! Any user can take any abstract name, so the reader looks who listens: root or the mount's user.

use crate::life::mountinfo::{Device, Mount};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// Most connections kept; of more, the oldest are dropped: nobody can use up our descriptors.
const WAITING_MAX: usize = 64;

const DURABLE: &str = "durable";

fn address(device: Device) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("kivafs/{}:{}", device.major, device.minor))
}

/// The server's end.
pub struct Verdict {
    listener: UnixListener,
    waiting: Mutex<VecDeque<UnixStream>>,
}

impl Verdict {
    /// Listens.
    pub fn listen(device: Device) -> std::io::Result<Verdict> {
        let listener = UnixListener::bind_addr(&address(device)?)?;
        listener.set_nonblocking(true)?;
        Ok(Verdict { listener, waiting: Mutex::default() })
    }

    /// Takes in who has connected since. Does not wait.
    pub fn collect(&self) {
        let mut waiting = self.waiting.lock();
        while let Ok((stream, _)) = self.listener.accept() {
            // A umount that was refused (busy) has hung up.
            waiting.retain_mut(
                |stream| matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock),
            );
            if waiting.len() == WAITING_MAX {
                waiting.pop_front();
            }
            if stream.set_nonblocking(true).is_ok() {
                waiting.push_back(stream);
            }
        }
    }

    /// Tells everybody.
    pub fn tell(&self, verdict: &Result<(), String>) {
        self.collect();
        let line = match verdict {
            Ok(()) => DURABLE,
            Err(why) => why,
        };
        for mut stream in self.waiting.lock().drain(..) {
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
        let stream = UnixStream::connect_addr(&address(mount.device).ok()?).ok()?;
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
    use std::ffi::OsString;

    fn mount(minor: u32) -> Mount {
        // No device has such a number, so that a test meets no mount of this machine.
        let device = Device { major: u32::MAX, minor };
        Mount { device, dir: "/".into(), fs_type: String::new(), source: OsString::new(), user: None }
    }

    #[test]
    fn every_waiter_hears_the_verdict() {
        let mount = mount(std::process::id());
        let verdict = Verdict::listen(mount.device).unwrap();
        let mut waiters: Vec<Waiter> = (0..3).map(|_| Waiter::connect(&mount).unwrap()).collect();
        assert_eq!(waiters[0].hear(Duration::from_millis(1)), Heard::Nothing);
        verdict.tell(&Err("the disk is full".into()));
        drop(verdict);
        for waiter in &mut waiters {
            assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::NotDurable("the disk is full".into()));
        }
    }

    #[test]
    fn a_server_that_dies_is_no_good_news() {
        let mount = mount(std::process::id().wrapping_neg());
        assert!(Waiter::connect(&mount).is_none());
        let verdict = Verdict::listen(mount.device).unwrap();
        let mut waiter = Waiter::connect(&mount).unwrap();
        verdict.collect();
        drop(verdict);
        assert_eq!(waiter.hear(Duration::from_secs(9)), Heard::Died);
    }
}
