//! Connections to the server: each connection of a client has one of its own, so that its keep-alive is
//! the client's.

use crate::body::Flow;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::io;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The server may be closing a connection that was idle for longer.
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Upstream {
    /// HOST:PORT
    server: String,
    idle: Mutex<Option<(SendRequest<Flow>, Instant)>>,
}

impl Upstream {
    pub(crate) fn new(server: &str) -> Upstream {
        Upstream { server: server.to_owned(), idle: Mutex::new(None) }
    }

    /// Sends a request; the head of its answer. Err: the server could not be reached, or its
    /// connection broke.
    pub(crate) async fn send(&self, mut request: Request<Flow>) -> io::Result<Response<Incoming>> {
        loop {
            let idle = self.idle.lock().take().filter(|(_, since)| since.elapsed() < IDLE_MAX);
            let kept = match idle {
                Some((mut sender, _)) => sender.ready().await.is_ok().then_some(sender),
                None => None,
            };
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    *self.idle.lock() = Some((sender, Instant::now()));
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    // Nothing of it was sent: the server had closed the connection.
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(io::Error::other(error.into_error())),
                },
            }
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Flow>> {
        let stream = TcpStream::connect(&self.server).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // What breaks it is told to who waits for an answer.
        tokio::spawn(async { connection.await.ok() });
        Ok(sender)
    }
}
