//! Addresses, doors and outages.

use crate::body::{Flow, Pace};
use crate::clock::Clock;
use crate::judge::{Judge, Verdict};
use crate::pass::{NoAnswer, pass};
use crate::past::Past;
use crate::plan::Plan;
use crate::record::{Counts, Entry, Record, Violation};
use crate::request::Asked;
use crate::upstream::Upstream;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::{Condvar, Mutex};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{oneshot, watch};

/// What a proxy is started with.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// The real server: `http://HOST:PORT`.
    pub upstream: String,
    /// Of all decisions; printed at the start.
    pub seed: u64,
    /// The first address, and the port; 0 for any.
    pub listen: SocketAddrV4,
    /// How many addresses: this one and those that follow it.
    pub addresses: usize,
    /// Bytes of bodies to keep for stale answers; of one a quarter of that at most.
    pub remember_bytes: usize,
}

impl ProxyOptions {
    /// One address, any port, seed 1.
    pub fn to(upstream: &str) -> ProxyOptions {
        ProxyOptions {
            upstream: upstream.to_owned(),
            seed: 1,
            listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            addresses: 1,
            remember_bytes: 256 << 20,
        }
    }
}

/// How an address does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// It does.
    None,
    /// Connections are reset, and new ones refused.
    Refuse,
    /// Nothing moves on any connection, until the outage ends: then all goes on.
    Hang,
}

/// A proxy, listening until it is dropped. What is late or held by then never reaches the server.
pub struct Proxy {
    door: Option<Door>,
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

pub(crate) struct Inner {
    /// HOST:PORT
    pub(crate) server: String,
    pub(crate) remember_bytes: usize,
    pub(crate) record: Arc<Record>,
    pub(crate) state: Mutex<State>,
    pub(crate) clock: Clock,
    pub(crate) up: Arc<Pace>,
    pub(crate) down: Arc<Pace>,
    /// Of each address.
    pub(crate) outages: Vec<watch::Sender<Outage>>,
    /// Requests that are stuck.
    pub(crate) holds: Mutex<Vec<oneshot::Sender<()>>>,
    addresses: Vec<Ipv4Addr>,
    doors: AtomicUsize,
    listeners: Listeners,
    runtime: Handle,
}

pub(crate) struct State {
    pub(crate) judge: Judge,
    pub(crate) past: Past,
}

impl State {
    pub(crate) fn decide(&mut self, asked: &Asked, address: usize, door: usize) -> Verdict {
        self.judge.decide(asked, address, door, &mut self.past)
    }
}

/// What each listener, by door and address, has come to; for who waits until all have.
#[derive(Default)]
struct Listeners {
    states: Mutex<HashMap<(usize, usize), Outage>>,
    changed: Condvar,
}

impl Listeners {
    fn now(&self, door: usize, address: usize, state: Option<Outage>) {
        match state {
            Some(state) => self.states.lock().insert((door, address), state),
            None => self.states.lock().remove(&(door, address)),
        };
        self.changed.notify_all();
    }

    fn wait(&self, mut is_there: impl FnMut(&HashMap<(usize, usize), Outage>) -> bool) {
        let limit = Duration::from_secs(30);
        let mut states = self.states.lock();
        while !is_there(&states) {
            let waited = self.changed.wait_for(&mut states, limit);
            assert!(!waited.timed_out(), "the proxy's listeners are stuck");
        }
    }
}

impl Proxy {
    /// Prints the seed.
    pub fn start(options: ProxyOptions) -> io::Result<Proxy> {
        assert!((1..=4).contains(&options.addresses), "from 1 to 4 addresses");
        let server = options.upstream.strip_prefix("http://").map(|server| server.trim_end_matches('/'));
        let server = server.filter(|server| server.contains(':') && !server.contains('/'));
        let server = server.ok_or_else(|| io::Error::other(format!("not http://HOST:PORT: {}", options.upstream)))?;
        let first = u32::from(*options.listen.ip());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fault-proxy")
            .enable_all()
            .build()?;
        let inner = Arc::new(Inner {
            server: server.to_owned(),
            remember_bytes: options.remember_bytes,
            record: Arc::new(Record::new()),
            state: Mutex::new(State { judge: Judge::new(options.seed), past: Past::new(options.remember_bytes) }),
            clock: Clock::start()?,
            up: Arc::default(),
            down: Arc::default(),
            outages: (0..options.addresses).map(|_| watch::Sender::new(Outage::None)).collect(),
            holds: Mutex::default(),
            addresses: (0..options.addresses as u32).map(|index| Ipv4Addr::from(first + index)).collect(),
            doors: AtomicUsize::new(0),
            listeners: Listeners::default(),
            runtime: runtime.handle().clone(),
        });
        let door = Door::open(&inner, options.listen.port())?;
        eprintln!("fault proxy at {} to {}, seed {}", door.endpoint(), options.upstream, options.seed);
        Ok(Proxy { door: Some(door), inner, runtime: Some(runtime) })
    }

    fn door_0(&self) -> &Door {
        self.door.as_ref().expect("it is open until the proxy is dropped")
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        self.door_0().endpoint()
    }

    /// All addresses, with the port that they share.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.door_0().addresses()
    }

    /// A further port, at the same addresses, for a writer that is to be told apart.
    pub fn door(&self) -> io::Result<Door> {
        Door::open(&self.inner, 0)
    }

    /// From now on that happens; counting begins anew.
    pub fn set(&self, plan: Plan) {
        self.inner.up.set(plan.bandwidth);
        self.inner.down.set(plan.bandwidth);
        self.inner.state.lock().judge.set(plan);
    }

    /// The same in words ([`Plan`]).
    ///
    /// # Panics
    ///
    /// With wrong words.
    pub fn plan(&self, words: &str) {
        self.set(words.parse().unwrap_or_else(|error| panic!("{error}")));
    }

    /// At all addresses. No request that comes after the return is answered otherwise.
    pub fn outage(&self, outage: Outage) {
        (0..self.inner.addresses.len()).for_each(|address| self.outage_at(address, outage));
    }

    /// At one address.
    pub fn outage_at(&self, address: usize, outage: Outage) {
        self.inner.outages[address].send_replace(outage);
        self.inner.listeners.wait(|states| states.iter().all(|((_, at), state)| *at != address || *state == outage));
    }

    /// Lets go on what is held.
    pub fn release(&self) {
        let holds = std::mem::take(&mut *self.inner.holds.lock());
        for hold in holds {
            hold.send(()).ok();
        }
    }

    /// The newest 100,000 requests.
    pub fn log(&self) -> Vec<Entry> {
        self.inner.record.log()
    }

    pub fn counts(&self) -> Counts {
        self.inner.record.counts()
    }

    /// Names that were written with two contents.
    pub fn violations(&self) -> Vec<Violation> {
        self.inner.record.violations()
    }

    /// Waits until that is so of the log; false: it was not within `limit`.
    pub fn wait(&self, limit: Duration, is_so: impl FnMut(&[Entry]) -> bool) -> bool {
        self.inner.record.wait(limit, is_so)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.door = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A port of a proxy, at all its addresses. Dropping it resets its connections: to the server and to
/// the others its client is dead.
pub struct Door {
    number: usize,
    port: u16,
    inner: Arc<Inner>,
    is_closed: watch::Sender<bool>,
}

impl Door {
    fn open(inner: &Arc<Inner>, port: u16) -> io::Result<Door> {
        let number = inner.doors.fetch_add(1, Ordering::Relaxed);
        let mut attempt = 0;
        let (port, listeners) = loop {
            attempt += 1;
            match listen_at_all(&inner.addresses, port) {
                Ok(listeners) => break listeners,
                // The port that one address had free may be taken at another.
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && attempt < 100 => {}
                Err(error) => return Err(error),
            }
        };
        let is_closed = watch::Sender::new(false);
        for (address, (reserved, listener)) in listeners.into_iter().enumerate() {
            let listening = Listening {
                proxy: inner.clone(),
                door: number,
                address,
                at: SocketAddrV4::new(inner.addresses[address], port),
                _reserved: reserved,
                is_closed: is_closed.subscribe(),
            };
            inner.listeners.now(number, address, Some(Outage::None));
            inner.runtime.spawn(listening.run(listener));
        }
        let door = Door { number, port, inner: inner.clone(), is_closed };
        door.inner.listeners.wait(|states| {
            let current = |address: &usize| *door.inner.outages[*address].borrow();
            states.iter().all(|((at, address), state)| *at != number || *state == current(address))
        });
        Ok(door)
    }

    /// By which entries and rules name it.
    pub fn number(&self) -> usize {
        self.number
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addresses()[0])
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.inner.addresses.iter().map(|address| (*address, self.port).into()).collect()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.is_closed.send_replace(true);
        self.inner.listeners.wait(|states| states.keys().all(|(door, _)| *door != self.number));
    }
}

/// Listeners on one port at all the addresses, each with a socket that keeps the port when nobody listens.
fn listen_at_all(addresses: &[Ipv4Addr], port: u16) -> io::Result<(u16, Vec<(Socket, TcpListener)>)> {
    let mut port = port;
    let mut listeners = Vec::new();
    for address in addresses {
        let reserved = bind(SocketAddrV4::new(*address, port))?;
        port = reserved.local_addr()?.as_socket().map_or(port, |address| address.port());
        listeners.push((reserved, listen(SocketAddrV4::new(*address, port))?));
    }
    Ok((port, listeners))
}

fn bind(at: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

fn listen(at: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = bind(at)?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A door at one address.
struct Listening {
    proxy: Arc<Inner>,
    door: usize,
    address: usize,
    at: SocketAddrV4,
    _reserved: Socket,
    is_closed: watch::Receiver<bool>,
}

impl Listening {
    async fn run(mut self, listener: TcpListener) {
        let mut outage = self.proxy.outages[self.address].subscribe();
        let mut listener = Some(tokio::net::TcpListener::from_std(listener).expect("a listener, not blocking"));
        while !*self.is_closed.borrow_and_update() {
            let state = *outage.borrow_and_update();
            if state == Outage::Refuse {
                listener = None;
            } else if listener.is_none() {
                let again = listen(self.at).and_then(tokio::net::TcpListener::from_std);
                listener = Some(again.expect("the port was kept"));
            }
            self.proxy.listeners.now(self.door, self.address, Some(state));
            let is_closed = self.is_closed.clone();
            let mut outage_changed = pin!(outage.changed());
            let mut closed = pin!(self.is_closed.changed());
            // Accepts until something else changes. While nothing answers, the kernel goes on
            // accepting until its queue is full.
            poll_fn(|context| {
                while let (Outage::None, Some(listener)) = (state, &listener) {
                    let Poll::Ready(accepted) = listener.poll_accept(context) else { break };
                    // What broke before it was accepted is nobody's affair.
                    if let Ok((stream, _)) = accepted {
                        self.proxy.record.connected();
                        let connection = Connection {
                            proxy: self.proxy.clone(),
                            door: self.door,
                            address: self.address,
                            upstream: Upstream::new(&self.proxy.server),
                            is_closed: is_closed.clone(),
                            is_reset: AtomicBool::new(false),
                        };
                        tokio::spawn(serve(Arc::new(connection), stream));
                    }
                }
                if outage_changed.as_mut().poll(context).is_ready() || closed.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                Poll::Pending
            })
            .await;
        }
    }
}

impl Drop for Listening {
    /// Also when the proxy goes before its door, and its tasks with it: whoever closes the door waits for
    /// this. By now nobody listens, since what does is younger than this.
    fn drop(&mut self) {
        self.proxy.listeners.now(self.door, self.address, None);
    }
}

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) proxy: Arc<Inner>,
    pub(crate) door: usize,
    pub(crate) address: usize,
    pub(crate) upstream: Upstream,
    is_closed: watch::Receiver<bool>,
    /// When it is closed, its client meets a reset.
    is_reset: AtomicBool,
}

impl Connection {
    /// Waits for the end of an outage in which nothing answers. False: it is over with the connection.
    pub(crate) async fn is_passable(&self) -> bool {
        let mut outage = self.proxy.outages[self.address].subscribe();
        let state = outage.wait_for(|outage| *outage != Outage::Hang).await;
        state.is_ok_and(|outage| *outage == Outage::None) && !*self.is_closed.borrow()
    }

    fn reset(&self) {
        self.is_reset.store(true, Ordering::Relaxed);
    }

    async fn answer(self: Arc<Connection>, request: Request<Incoming>) -> Result<Response<Flow>, Broken> {
        let passed = tokio::spawn(pass(self.clone(), request)).await;
        match passed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
            Ok(answer) => Ok(answer),
            Err(NoAnswer::Reset) => {
                self.reset();
                Err(Broken)
            }
            // Until the client has enough.
            Err(NoAnswer::Never(_ticket)) => pending().await,
        }
    }
}

/// The connection ends here.
#[derive(Debug, Error)]
#[error("broken on purpose")]
struct Broken;

async fn serve(connection: Arc<Connection>, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let mut outage = connection.proxy.outages[connection.address].subscribe();
    let mut is_closed = connection.is_closed.clone();
    let wire = TokioIo::new(Wire { stream, connection: connection.clone() });
    let service = service_fn(|request| connection.clone().answer(request));
    let mut served = pin!(http1::Builder::new().serve_connection(wire, service));
    loop {
        let state = *outage.borrow_and_update();
        if state == Outage::Refuse || *is_closed.borrow_and_update() {
            connection.reset();
            return;
        }
        let mut outage_changed = pin!(outage.changed());
        let mut closed = pin!(is_closed.changed());
        // What breaks a connection is told to who is at its other end.
        let is_over = poll_fn(|context| {
            if state == Outage::None && served.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            let is_other = outage_changed.as_mut().poll(context).is_ready() || closed.as_mut().poll(context).is_ready();
            if is_other { Poll::Ready(false) } else { Poll::Pending }
        });
        if is_over.await {
            return;
        }
    }
}

/// A socket that may end with a reset.
struct Wire {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.connection.is_reset.load(Ordering::Relaxed) {
            SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).ok();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
