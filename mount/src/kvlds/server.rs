//! The socket: listens, and serves each connection by itself.
//!
//! A Unix socket is made with mode 0600. The file of a socket that nobody listens at any more is
//! replaced; one that somebody does is an error, and so is anything that is no socket.

use super::connection::{self, Dropped};
use crate::fs::FileSystem;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::Mode;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Threads that carry out requests: the store has one writer at a time.
const THREADS: usize = 2;
/// How long nobody is accepted after that has failed: trying at once would do nothing but fill the log.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket's file.
    Unix(PathBuf),
    /// An address of this machine, 127.0.0.1:PORT, say.
    Tcp(SocketAddr),
}

impl Address {
    /// HOST:PORT with numbers, if it is that, else a path.
    pub fn parse(word: &str) -> Address {
        word.parse().map_or_else(|_| Address::Unix(word.into()), Address::Tcp)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => path.display().fmt(f),
            Address::Tcp(address) => address.fmt(f),
        }
    }
}

/// Why it cannot be listened there.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error("{0}: another process serves this socket")]
    InUse(Address),
    /// The path has something else.
    #[error("{0}: there is a file that is no socket; give another path")]
    NoSocket(Address),
    /// Anything else.
    #[error("{address}: {error}")]
    Io { address: Address, error: io::Error },
}

/// A socket that is served. Dropping it ends all its connections.
pub struct Server {
    runtime: Option<Runtime>,
    /// The socket's file is removed in the end.
    path: Option<PathBuf>,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Server {
    /// Listens and begins to serve.
    pub fn start(fs: Arc<FileSystem>, address: &Address) -> Result<Server, ListenError> {
        let io = |error| ListenError::Io { address: address.clone(), error };
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("kivafs-kvlds")
            .enable_io()
            .enable_time()
            .build()
            .map_err(io)?;
        let guard = runtime.enter();
        let (listener, path) = match address {
            Address::Unix(path) => {
                clear_away(path, address)?;
                let listener = listen_at(path).and_then(|fd| UnixListener::from_std(fd.into()));
                (Listener::Unix(listener.map_err(io)?), Some(path.clone()))
            }
            Address::Tcp(at) => {
                let listener = std::net::TcpListener::bind(at).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    TcpListener::from_std(listener)
                });
                let listener = listener.map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => ListenError::InUse(address.clone()),
                    _ => io(error),
                })?;
                (Listener::Tcp(listener), None)
            }
        };
        drop(guard);
        runtime.spawn(accept(fs, listener));
        Ok(Server { runtime: Some(runtime), path })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If it cannot be removed, the next to listen here does it.
            drop(std::fs::remove_file(path));
        }
        if let Some(runtime) = self.runtime.take() {
            // What waits for storage ends when that answers.
            runtime.shutdown_background();
        }
    }
}

async fn accept(fs: Arc<FileSystem>, listener: Listener) {
    loop {
        let accepted = match &listener {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(serve(fs.clone(), stream));
            }),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Answers are sent whole.
                drop(stream.set_nodelay(true));
                tokio::spawn(serve(fs.clone(), stream));
            }),
        };
        if let Err(error) = accepted {
            // Too many open files, mostly: who waits is accepted when others have gone.
            tracing::warn!("a connection could not be accepted: {error}");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

async fn serve<S>(fs: Arc<FileSystem>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    match connection::serve(fs, stream).await {
        Ok(()) => {}
        // Clients come and go.
        Err(gone @ Dropped::Io(_)) => tracing::debug!("a key connection has ended: {gone}"),
        Err(dropped) => tracing::warn!("a key connection was dropped: {dropped}"),
    }
}

/// Removes the file of a socket that nobody listens at.
fn clear_away(path: &Path, address: &Address) -> Result<(), ListenError> {
    let io = |error| ListenError::Io { address: address.clone(), error };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NoSocket(address.clone())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse(address.clone())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(io),
        Err(error) => Err(io(error)),
    }
}

/// A socket at that path that only its owner may connect to, from the first moment on.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Nobody can connect before it listens.
    let mode = (Mode::S_IRUSR | Mode::S_IWUSR).bits();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}
