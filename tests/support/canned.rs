//! An HTTP server that answers what a test tells it to, for what no real server does on demand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What a client sent.
#[derive(Debug)]
pub struct Request {
    /// How many came before it, over all connections.
    pub number: usize,
    /// `GET /bucket/key?x HTTP/1.1` and the header lines.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or("")
    }

    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// What to do about a request.
pub enum Answer {
    Send(Vec<u8>),
    /// Send this and close the connection.
    Last(Vec<u8>),
    /// Never answer, until the client closes the connection.
    Hold,
}

impl Answer {
    /// An answer with a body and its length, and further header lines (each ends with CRLF).
    pub fn with(status: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        Answer::Send([head.as_bytes(), body].concat())
    }

    /// An error as S3 servers send it.
    pub fn error(status: &str, code: &str) -> Answer {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as told</Message></Error>");
        Answer::with(status, "content-type: application/xml\r\n", body.as_bytes())
    }
}

/// A server on a port of its own, as long as the test program runs.
pub struct Canned {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Canned {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Canned {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let (answer, counter) = (Arc::new(answer), Arc::clone(&requests));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, counter) = (Arc::clone(&answer), Arc::clone(&counter));
                thread::spawn(move || serve(connection, &counter, &*answer));
            }
        });
        Canned { address, requests }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that have come so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut connection: TcpStream, counter: &AtomicUsize, answer: &dyn Fn(&Request) -> Answer) {
    let mut input = Vec::new();
    while let Some(request) = read_request(&mut connection, &mut input, counter) {
        let (bytes, is_last) = match answer(&request) {
            Answer::Send(bytes) => (bytes, false),
            Answer::Last(bytes) => (bytes, true),
            Answer::Hold => {
                // Whatever comes: the end of the connection is what is waited for.
                while connection.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
                return;
            }
        };
        if connection.write_all(&bytes).is_err() || is_last {
            return;
        }
    }
}

fn read_request(connection: &mut TcpStream, input: &mut Vec<u8>, counter: &AtomicUsize) -> Option<Request> {
    let mut read_more = |input: &mut Vec<u8>| {
        let mut piece = [0; 64 << 10];
        let count = connection.read(&mut piece).ok().filter(|count| *count > 0)?;
        input.extend_from_slice(&piece[..count]);
        Some(())
    };
    let head_end = loop {
        match input.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => read_more(input)?,
        }
    };
    let head = String::from_utf8_lossy(&input[..head_end]).into_owned();
    let mut request = Request { number: 0, head, body: Vec::new() };
    let length: usize = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while input.len() < head_end + length {
        read_more(input)?;
    }
    request.body = input[head_end..head_end + length].to_vec();
    input.drain(..head_end + length);
    request.number = counter.fetch_add(1, Ordering::SeqCst);
    Some(request)
}
