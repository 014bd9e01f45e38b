//! The socket: listens, and serves each connection by itself.
//!
//! The file of a socket that nobody listens at any more is replaced; one that somebody does is an
//! error, and so is anything that is no socket.

use super::connection::{self, Dropped, Source};
use crate::fs::{FileSystem, Forget};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Builder, Handle, Runtime};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Most threads that carry out requests: the store has one writer at a time.
const THREADS_MAX: usize = 4;
/// And fewest: one may have to wait for a moment for who changes something.
const THREADS_MIN: usize = 2;
/// Mode of a socket's file, unless it is asked for another.
pub const USUAL_MODE: u32 = 0o600;
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
    /// Whoever can connect can change everything.
    #[error("{0}: keys are served to this machine only: give a path, 127.0.0.1:PORT or [::1]:PORT")]
    NotLocal(Address),
    /// Anything else.
    #[error("{address}: {error}")]
    Io { address: Address, error: io::Error },
}

/// A socket that can be connected to. Whoever does waits until it is served; dropping it sends them
/// away and removes its file.
pub struct Socket {
    address: Address,
    listener: Listening,
    file: SocketFile,
}

enum Listening {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener),
}

/// The file, if it has one.
struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // If it cannot be removed, the next to listen here does it.
            drop(std::fs::remove_file(path));
        }
    }
}

impl Socket {
    /// Listens. `mode`: of a Unix socket's file; who may not write to it cannot connect, from the first
    /// moment on.
    pub fn listen(address: &Address, mode: u32) -> Result<Socket, ListenError> {
        let io = |error| ListenError::Io { address: address.clone(), error };
        let (listener, file) = match address {
            Address::Unix(path) => {
                clear_away(path, address)?;
                let listener = listen_at(path, mode).map_err(io)?;
                (Listening::Unix(listener.into()), SocketFile(Some(path.clone())))
            }
            Address::Tcp(at) if !at.ip().is_loopback() => return Err(ListenError::NotLocal(address.clone())),
            Address::Tcp(at) => {
                let listener = std::net::TcpListener::bind(at).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                });
                let listener = listener.map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => ListenError::InUse(address.clone()),
                    _ => io(error),
                })?;
                (Listening::Tcp(listener), SocketFile(None))
            }
        };
        Ok(Socket { address: address.clone(), listener, file })
    }
}

/// A socket that is served. Dropping it ends all its connections.
///
/// Each thread serves connections of its own, in a runtime of its own: they get them in turn. In a common one, the
/// threads that have nothing to do are woken by whatever comes for a connection that another is busy
/// with, and each piece that a client sends costs the client that wakeup (a tenth and more of the rate of SETs).
pub struct Server {
    runtimes: Vec<Runtime>,
    _file: SocketFile,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Server {
    /// Serves a socket from a file system. `forget`: who keeps copies of what its files were, if anybody
    /// does.
    pub fn start(fs: Arc<FileSystem>, socket: Socket, forget: Option<Forget>) -> Result<Server, ListenError> {
        let Socket { address, listener, file } = socket;
        let io = |error| ListenError::Io { address: address.clone(), error };
        let threads =
            std::thread::available_parallelism().map_or(THREADS_MIN, NonZero::get).clamp(THREADS_MIN, THREADS_MAX);
        let new_runtime = |_| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).thread_name("kivafs-kvlds").enable_io().enable_time().build()
        };
        let runtimes: Vec<Runtime> = (0..threads).map(new_runtime).collect::<io::Result<_>>().map_err(io)?;
        let guard = runtimes[0].enter();
        let listener = match listener {
            Listening::Unix(listener) => UnixListener::from_std(listener).map(Listener::Unix),
            Listening::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
        };
        let listener = listener.map_err(io)?;
        drop(guard);
        let threads = runtimes.iter().map(|runtime| runtime.handle().clone()).collect();
        runtimes[0].spawn(accept(Source::new(fs, forget), listener, threads));
        Ok(Server { runtimes, _file: file })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..) {
            // What waits for storage ends when that answers.
            runtime.shutdown_background();
        }
    }
}

async fn accept(source: Source, listener: Listener, threads: Vec<Handle>) {
    for thread in threads.iter().cycle() {
        let accepted = match &listener {
            Listener::Unix(listener) => listener.accept().await.and_then(|(stream, _)| {
                let stream = stream.into_std()?;
                let _entered = thread.enter();
                let (reader, writer) = UnixStream::from_std(stream)?.into_split();
                thread.spawn(serve(source.clone(), reader, writer));
                Ok(())
            }),
            Listener::Tcp(listener) => listener.accept().await.and_then(|(stream, _)| {
                // Answers are sent whole.
                drop(stream.set_nodelay(true));
                let stream = stream.into_std()?;
                let _entered = thread.enter();
                let (reader, writer) = TcpStream::from_std(stream)?.into_split();
                thread.spawn(serve(source.clone(), reader, writer));
                Ok(())
            }),
        };
        if let Err(error) = accepted {
            // Too many open files, mostly: who waits is accepted when others have gone.
            tracing::warn!("a connection could not be accepted: {error}");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

async fn serve(
    source: Source,
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
) {
    match connection::serve(source, reader, writer).await {
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

/// A socket at that path with that mode.
fn listen_at(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Nobody can connect before it listens.
    let listening = std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .and_then(|()| Ok(listen(&fd, Backlog::new(BACKLOG)?)?));
    if let Err(error) = listening {
        // What it was bound to would be in the way.
        drop(std::fs::remove_file(path));
        return Err(error);
    }
    Ok(fd)
}
