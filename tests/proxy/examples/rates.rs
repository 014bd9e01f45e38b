//! What the proxy costs: rates and latencies to a server past it and through it.
//!
//! First a server in this process that does nothing, to see the proxy's own limit; then, if it is up,
//! the real one of tests/real/ceph.sh: `cargo run --release -p kivafs-fault-proxy --example rates`.

#[path = "../tests/client/mod.rs"]
mod client;

use bytes::Bytes;
use client::{Client, PATIENCE};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kivafs_fault_proxy::{Proxy, ProxyOptions};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const LANES: usize = 16;
const BODY_BYTES: usize = 8 << 20;
const ROUNDS: usize = 6;
const SMALL_ROUNDS: usize = 200;

fn main() {
    let body: Bytes = (0..BODY_BYTES).map(|index| (index * 31 + index / 4093) as u8).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let nothing = runtime.block_on(start_nothing(body.clone()));
    let proxy = Proxy::start(ProxyOptions::to(&format!("http://{nothing}"))).expect("proxy");
    println!("a server that does nothing ({LANES} lanes, {} MiB)", BODY_BYTES >> 20);
    for (way, endpoint) in [("past the proxy", format!("http://{nothing}")), ("through it", proxy.endpoint())] {
        let address = endpoint.trim_start_matches("http://").to_owned();
        let rate = |method: Method| runtime.block_on(rate_of(&address, method, &body));
        let (put, get) = (rate(Method::PUT), rate(Method::GET));
        println!("  {way}: PUT {put:.0} MiB/s, GET {get:.0} MiB/s, small GET {:.0} us", latency(&runtime, &address));
    }
    for delay in [1, 30] {
        proxy.plan(&format!("any * delay={delay}ms"));
        println!(
            "  through it, with {delay} ms of delay: small GET {:.0} us",
            latency(&runtime, proxy.endpoint().trim_start_matches("http://"))
        );
    }

    let real = &client::ceph::ceph().endpoint;
    let proxy = Proxy::start(ProxyOptions::to(real)).expect("proxy");
    let prefix = client::ceph::fresh_prefix();
    println!("the real server ({LANES} lanes, {} MiB)", BODY_BYTES >> 20);
    for turn in 1..=2 {
        for (way, endpoint) in [("past the proxy", real), ("through it", &proxy.endpoint())] {
            let lanes: Vec<Client> = (0..LANES).map(|_| Client::new(endpoint, &prefix, PATIENCE)).collect();
            let put = in_parallel(&lanes, |client, name| client.put(name, body.clone()).expect("PUT"));
            let get = in_parallel(&lanes, |client, name| assert_eq!(client.get(name).expect("GET").len(), BODY_BYTES));
            lanes[0].put("small", "small").expect("PUT");
            let mut times: Vec<Duration> =
                (0..300).map(|_| timed(|| drop(lanes[0].get("small").expect("GET")))).collect();
            times.sort();
            for name in (0..LANES).flat_map(|lane| (0..ROUNDS).map(move |round| name(lane, round))) {
                lanes[0].delete(&name).expect("DELETE");
            }
            println!("  {way}, turn {turn}: PUT {put:.0} MiB/s, GET {get:.0} MiB/s, small GET {:?}", times[150]);
        }
    }
    assert_eq!(proxy.violations(), []);
}

fn timed(what: impl FnOnce()) -> Duration {
    let start = Instant::now();
    what();
    start.elapsed()
}

/// MiB/s when each lane has one request under way.
fn in_parallel(lanes: &[Client], request: impl Fn(&Client, &str) + Sync) -> f64 {
    let took = timed(|| {
        std::thread::scope(|scope| {
            for (lane, client) in lanes.iter().enumerate() {
                let request = &request;
                scope.spawn(move || (0..ROUNDS).for_each(|round| request(client, &name(lane, round))));
            }
        });
    });
    mib(lanes.len() * ROUNDS * BODY_BYTES) / took.as_secs_f64()
}

fn name(lane: usize, round: usize) -> String {
    format!("d/{lane}-{round}")
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Swallows what it gets and gives out the body.
async fn start_nothing(body: Bytes) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("nodelay");
            let body = body.clone();
            let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                let wanted = match (request.method(), request.uri().path()) {
                    (&Method::GET, "/b/d/large") => body.clone(),
                    _ => Bytes::new(),
                };
                async move {
                    while request.body_mut().frame().await.is_some() {}
                    Ok::<_, Infallible>(Response::new(Full::new(wanted)))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// A connection that sends one request after the other.
struct Lane(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl Lane {
    async fn new(address: &str) -> Lane {
        let stream = TcpStream::connect(address).await.expect("connection");
        stream.set_nodelay(true).expect("nodelay");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
        tokio::spawn(connection);
        Lane(sender)
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) {
        let request = Request::builder().method(method).uri(path).header("host", "x").body(Full::new(body));
        self.0.ready().await.expect("kept connection");
        let mut answer = self.0.send_request(request.expect("request")).await.expect("answer");
        while answer.body_mut().frame().await.is_some() {}
    }
}

async fn rate_of(address: &str, method: Method, body: &Bytes) -> f64 {
    const ROUNDS: usize = 20;
    let start = Instant::now();
    let lanes: Vec<_> = (0..LANES)
        .map(|number| {
            let (address, method, body) = (address.to_owned(), method.clone(), body.clone());
            tokio::spawn(async move {
                let mut lane = Lane::new(&address).await;
                for round in 0..ROUNDS {
                    match method {
                        Method::GET => lane.send(Method::GET, "/b/d/large", Bytes::new()).await,
                        _ => lane.send(Method::PUT, &format!("/b/d/{number}-{round}"), body.clone()).await,
                    }
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.expect("lane");
    }
    mib(LANES * ROUNDS * BODY_BYTES) / start.elapsed().as_secs_f64()
}

/// Microseconds, in the median, that a request without bodies takes.
fn latency(runtime: &Runtime, address: &str) -> f64 {
    runtime.block_on(async {
        let mut lane = Lane::new(address).await;
        let mut times = Vec::new();
        for _ in 0..SMALL_ROUNDS {
            let start = Instant::now();
            lane.send(Method::GET, "/b/d/small", Bytes::new()).await;
            times.push(start.elapsed());
        }
        times.sort();
        times[SMALL_ROUNDS / 2].as_secs_f64() * 1e6
    })
}
