//! A line to a server that can be cut, and mended: while it is cut, nothing comes through, and
//! nothing is refused either.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// The line. It lasts for as long as the test program.
pub struct Line {
    /// Where it begins.
    pub endpoint: String,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    cut: Mutex<bool>,
    mended: Condvar,
}

impl Gate {
    fn pass(&self) {
        let cut = self.cut.lock().unwrap();
        drop(self.mended.wait_while(cut, |cut| *cut).unwrap());
    }
}

impl Line {
    /// A line to `http://HOST:PORT`.
    pub fn to(endpoint: &str) -> Line {
        let server: SocketAddr = endpoint.strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Line { endpoint: format!("http://{}", listener.local_addr().unwrap()), gate: Arc::default() };
        let gate = line.gate.clone();
        std::thread::spawn(move || {
            for caller in listener.incoming() {
                let (caller, gate) = (caller.unwrap(), gate.clone());
                std::thread::spawn(move || connect(&caller, server, &gate));
            }
        });
        line
    }

    pub fn cut(&self) {
        *self.gate.cut.lock().unwrap() = true;
    }

    pub fn mend(&self) {
        *self.gate.cut.lock().unwrap() = false;
        self.gate.mended.notify_all();
    }
}

fn connect(caller: &TcpStream, server: SocketAddr, gate: &Gate) {
    gate.pass();
    let Ok(called) = TcpStream::connect(server) else { return };
    for stream in [caller, &called] {
        stream.set_nodelay(true).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| carry(caller, &called, gate));
        carry(&called, caller, gate);
    });
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, gate: &Gate) {
    let mut part = [0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut part) {
        gate.pass();
        if to.write_all(&part[..length]).is_err() {
            break;
        }
    }
    // Whoever is at the other end has hung up by now, or will not mind.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
