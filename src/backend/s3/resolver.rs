//! The server's addresses: looked up off the request path, spread over, set aside while they fail.
//!
//! The HTTP client asks for addresses once a new connection. It gets two of those that are known:
//! the next in turn, and one more in case that refuses. A lookup happens while requests go on,
//! when a connection is made and the last lookup is a minute old; nothing is looked up or probed
//! while nobody connects. Only the first lookup, and one after a long silence, is waited for.
//!
//! Big services answer each lookup with a few of many addresses, so what was seen in the last ten
//! minutes is kept and connections spread over all of it.
//!
//! The client does not say which address failed to connect. So when one did, each is probed with a
//! TCP connect of our own. One that fails is set aside, longer each time, and is used again after
//! another probe succeeded. When all are set aside, all are used.
//!
//! An endpoint that is an address has one, and the client does not ask.

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// A lookup this old is repeated in the background.
const REFRESH_AFTER: Duration = Duration::from_secs(60);
/// An address not seen in lookups for so long is forgotten, and a lookup this old is not relied on.
const KEEP_FOR: Duration = Duration::from_secs(600);
/// No more addresses than these are kept of one name.
const ADDRESSES_MAX: usize = 64;
/// The client's connect time-out covers all that it is given, so it is given few.
const OFFERED_MAX: usize = 2;
/// One TCP connect.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an address is set aside after its first failure; doubled with each that follows.
const ASIDE_FIRST: Duration = Duration::from_secs(5);
const ASIDE_MAX: Duration = Duration::from_secs(120);
/// How long one is set aside that takes connections but gives no answers, which a probe cannot see.
const ASIDE_SILENT: Duration = Duration::from_secs(30);

type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
type Lookup = Box<dyn Fn(String) -> LookupFuture + Send + Sync>;

/// Answers the HTTP client from [`Addresses`].
#[derive(Clone, Debug)]
pub(super) struct Resolver(pub Arc<Addresses>);

/// What is known of the addresses of a server's names. Used on a runtime.
pub(super) struct Addresses {
    /// Where a probe connects to.
    port: u16,
    lookup: Lookup,
    names: Mutex<HashMap<String, Name>>,
    /// Something of `names` has changed.
    changed: Notify,
}

/// One host name. Normally there is one in all.
#[derive(Default)]
struct Name {
    addresses: Vec<Address>,
    /// The system put IPv6 first in the last lookup: it knows which of both has a route.
    prefers_v6: bool,
    /// Turns with each answer.
    turn: usize,
    looked_up: Option<Instant>,
    is_looking: bool,
    /// Why the last lookup failed, if it did.
    failure: Option<String>,
}

#[derive(Clone, Debug)]
struct Address {
    ip: IpAddr,
    /// When a lookup last named it.
    seen: Instant,
    /// Probes that failed in a row.
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// Not used, and not probed before then.
    Aside(Instant),
    /// A probe is under way; `was_good`: it is used meanwhile.
    Probed {
        was_good: bool,
    },
}

impl Address {
    fn is_usable(&self) -> bool {
        matches!(self.state, State::Good | State::Probed { was_good: true })
    }

    fn probe_failed(&mut self, now: Instant) {
        let wait = ASIDE_FIRST.saturating_mul(1 << self.failures.min(16)).min(ASIDE_MAX);
        self.failures += 1;
        self.state = State::Aside(now + wait);
    }
}

impl Name {
    /// Whether the addresses may be relied on without another lookup first.
    fn is_known(&self, now: Instant) -> bool {
        let is_recent = self.looked_up.is_some_and(|at| now.duration_since(at) < KEEP_FOR);
        // An old set is better than none, if the lookup of a new one failed.
        !self.addresses.is_empty() && (is_recent || (self.failure.is_some() && !self.is_looking))
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_old = self.looked_up.is_none_or(|at| now.duration_since(at) >= REFRESH_AFTER);
        !self.is_looking && (is_old || self.addresses.is_empty())
    }

    fn looked_up(&mut self, found: Vec<IpAddr>, now: Instant) {
        self.looked_up = Some(now);
        self.prefers_v6 = found.first().is_some_and(IpAddr::is_ipv6);
        for ip in found {
            match self.addresses.iter_mut().find(|address| address.ip == ip) {
                Some(address) => address.seen = now,
                None => self.addresses.push(Address { ip, seen: now, failures: 0, state: State::Good }),
            }
        }
        self.addresses.retain(|address| now.duration_since(address.seen) < KEEP_FOR);
        if self.addresses.len() > ADDRESSES_MAX {
            self.addresses.sort_by_key(|address| std::cmp::Reverse(address.seen));
            self.addresses.truncate(ADDRESSES_MAX);
        }
    }

    /// The next address in turn, and one more.
    fn offer(&mut self) -> Vec<IpAddr> {
        self.turn = self.turn.wrapping_add(1);
        let mut offered: Vec<&Address> = self.addresses.iter().filter(|address| address.is_usable()).collect();
        if offered.is_empty() {
            offered = self.addresses.iter().collect();
        }
        let prefers_v6 = self.prefers_v6;
        let (mut first, mut second): (Vec<IpAddr>, Vec<IpAddr>) =
            offered.iter().map(|address| address.ip).partition(|ip| ip.is_ipv6() == prefers_v6);
        for family in [&mut first, &mut second] {
            let by = self.turn % family.len().max(1);
            family.rotate_left(by);
        }
        // One of each family, so that the client can fall back to the other quickly.
        let one_of_each = first.first().copied().into_iter().chain(second.first().copied());
        let rest = first.iter().skip(1).chain(second.iter().skip(1)).copied();
        one_of_each.chain(rest).take(OFFERED_MAX).collect()
    }

    /// Begins a probe of each address that `wanted` picks, and says which those are.
    fn begin_probes(&mut self, wanted: impl Fn(&Address) -> bool) -> Vec<IpAddr> {
        let picked = self.addresses.iter_mut().filter(|address| wanted(address));
        picked
            .map(|address| {
                address.state = State::Probed { was_good: address.is_usable() };
                address.ip
            })
            .collect()
    }

    /// The addresses that have been set aside for long enough, now being probed.
    fn begin_second_chances(&mut self, now: Instant) -> Vec<IpAddr> {
        self.begin_probes(|address| matches!(address.state, State::Aside(until) if until <= now))
    }
}

impl Addresses {
    pub fn new(port: u16) -> Addresses {
        Addresses::with_lookup(
            port,
            Box::new(|name| {
                Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect()) })
            }),
        )
    }

    fn with_lookup(port: u16, lookup: Lookup) -> Addresses {
        Addresses { port, lookup, names: Mutex::default(), changed: Notify::new() }
    }

    /// Addresses to connect to, soon.
    async fn resolve(self: &Arc<Addresses>, host: &str) -> Result<Vec<IpAddr>, String> {
        let mut has_waited = false;
        loop {
            // Before looking, so that no change is missed.
            let changed = self.changed.notified();
            {
                let now = Instant::now();
                let mut names = self.names.lock();
                let name = names.entry(host.to_owned()).or_default();
                if has_waited && !name.is_looking && name.addresses.is_empty() {
                    return Err(name.failure.clone().unwrap_or_else(|| "it has no address".into()));
                }
                if !has_waited && name.is_due(now) {
                    name.is_looking = true;
                    tokio::spawn(Arc::clone(self).look_up(host.to_owned()));
                }
                if name.is_known(now) {
                    let again = name.begin_second_chances(now);
                    let offered = name.offer();
                    drop(names);
                    self.probe(host, again);
                    return Ok(offered);
                }
            }
            has_waited = true;
            changed.await;
        }
    }

    async fn look_up(self: Arc<Addresses>, host: String) {
        let found = (self.lookup)(host.clone()).await;
        let mut names = self.names.lock();
        let name = names.entry(host).or_default();
        name.is_looking = false;
        match found {
            Ok(found) => {
                name.failure = None;
                name.looked_up(found, Instant::now());
            }
            Err(error) => name.failure = Some(error.to_string()),
        }
        drop(names);
        self.changed.notify_waiters();
    }

    /// A connection could not be made, to which address is not known.
    pub fn connect_failed(self: &Arc<Addresses>) {
        let mut probes = Vec::new();
        for (host, name) in self.names.lock().iter_mut() {
            probes.push((host.clone(), name.begin_probes(|address| address.state == State::Good)));
        }
        for (host, ips) in probes {
            self.probe(&host, ips);
        }
    }

    /// A request over a connection to this address got no answer in time.
    pub fn no_answer(&self, ip: IpAddr) {
        let now = Instant::now();
        for name in self.names.lock().values_mut() {
            for address in name.addresses.iter_mut().filter(|address| address.ip == ip && address.state == State::Good)
            {
                address.state = State::Aside(now + ASIDE_SILENT);
                tracing::debug!("{ip} gives no answers and is set aside");
            }
        }
    }

    fn probe(self: &Arc<Addresses>, host: &str, ips: Vec<IpAddr>) {
        for ip in ips {
            let addresses = Arc::clone(self);
            let host = host.to_owned();
            tokio::spawn(async move {
                let answer = timeout(PROBE_TIMEOUT, TcpStream::connect((ip, addresses.port))).await;
                addresses.probed(&host, ip, matches!(answer, Ok(Ok(_))));
            });
        }
    }

    fn probed(&self, host: &str, ip: IpAddr, is_good: bool) {
        let mut names = self.names.lock();
        let addresses = names.get_mut(host).into_iter().flat_map(|name| &mut name.addresses);
        for address in addresses.filter(|address| address.ip == ip) {
            if is_good {
                address.failures = 0;
                address.state = State::Good;
            } else {
                address.probe_failed(Instant::now());
                tracing::debug!("{ip} of {host} cannot be reached and is set aside");
            }
        }
        drop(names);
        self.changed.notify_waiters();
    }
}

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, host: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { self.0.resolve(host).await.map_err(ResolveDnsError::new) })
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("port", &self.port).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::runtime::{Builder, Runtime};

    const HOST: &str = "server.test";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn name_with(ips: &[&str], now: Instant) -> Name {
        let mut name = Name::default();
        name.looked_up(ips.iter().map(|text| ip(text)).collect(), now);
        name
    }

    fn first_of_each(name: &mut Name, offers: usize) -> HashSet<IpAddr> {
        (0..offers).map(|_| name.offer()[0]).collect()
    }

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_io().enable_time().build().unwrap()
    }

    /// Addresses whose lookups give what `found` gives, in turn the number of the lookup.
    fn addresses(
        port: u16,
        found: impl Fn(usize) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> (Arc<Addresses>, Arc<AtomicUsize>) {
        let lookups = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&lookups);
        let lookup = move |_| -> LookupFuture {
            let found = found(counter.fetch_add(1, Ordering::SeqCst));
            Box::pin(async move { found })
        };
        (Arc::new(Addresses::with_lookup(port, Box::new(lookup))), lookups)
    }

    #[test]
    fn addresses_are_offered_in_turn_two_at_a_time() {
        let mut name = name_with(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], Instant::now());
        for _ in 0..2 {
            assert_eq!(first_of_each(&mut name, 3).len(), 3);
        }
        let offer = name.offer();
        assert!(offer.len() == OFFERED_MAX && offer[0] != offer[1], "{offer:?}");
        assert_eq!(name_with(&["10.0.0.1"], Instant::now()).offer(), [ip("10.0.0.1")]);
    }

    #[test]
    fn the_family_that_the_system_prefers_comes_first_with_the_other_behind_it() {
        let mut name = name_with(&["10.0.0.1", "10.0.0.2", "fd00::1"], Instant::now());
        for _ in 0..4 {
            let offer = name.offer();
            assert!(offer[0].is_ipv4() && offer[1].is_ipv6(), "{offer:?}");
        }
        let mut name = name_with(&["fd00::1", "10.0.0.1"], Instant::now());
        assert!(name.offer()[0].is_ipv6());
    }

    #[test]
    fn what_lookups_name_adds_up_and_is_forgotten_after_a_while() {
        let start = Instant::now();
        let mut name = name_with(&["10.0.0.1", "10.0.0.2"], start);
        name.looked_up(vec![ip("10.0.0.3"), ip("10.0.0.1")], start + KEEP_FOR / 2);
        assert_eq!(first_of_each(&mut name, 6).len(), 3);
        name.looked_up(vec![ip("10.0.0.3")], start + KEEP_FOR);
        assert_eq!(first_of_each(&mut name, 6), [ip("10.0.0.1"), ip("10.0.0.3")].into());
        let many = (0..200).map(|last| IpAddr::from([10, 0, 1, last]));
        name.looked_up(many.collect(), start + KEEP_FOR);
        assert_eq!(name.addresses.len(), ADDRESSES_MAX);
    }

    #[test]
    fn an_address_that_fails_is_set_aside_longer_each_time_and_tried_again() {
        let now = Instant::now();
        let mut name = name_with(&["10.0.0.1", "10.0.0.2"], now);
        name.addresses[1].probe_failed(now);
        assert_eq!(first_of_each(&mut name, 4), [ip("10.0.0.1")].into());
        assert!(name.begin_second_chances(now).is_empty());
        assert_eq!(name.begin_second_chances(now + ASIDE_FIRST), [ip("10.0.0.2")]);
        assert_eq!(first_of_each(&mut name, 4), [ip("10.0.0.1")].into(), "not while it is probed");
        assert!(name.begin_second_chances(now + ASIDE_FIRST).is_empty(), "one probe at a time");
        name.addresses[1].probe_failed(now);
        assert!(name.begin_second_chances(now + ASIDE_FIRST).is_empty());
        assert_eq!(name.begin_second_chances(now + ASIDE_FIRST * 2), [ip("10.0.0.2")]);
        for _ in 0..40 {
            name.addresses[1].probe_failed(now);
        }
        assert_eq!(name.begin_second_chances(now + ASIDE_MAX).len(), 1);
        // With nothing else left, all are used.
        name.addresses[0].probe_failed(now);
        assert_eq!(first_of_each(&mut name, 4).len(), 2);
    }

    #[test]
    fn an_address_that_refuses_is_found_by_probing_and_comes_back() {
        let good = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = good.local_addr().unwrap().port();
        runtime().block_on(async {
            let (addresses, _) = addresses(port, |_| Ok(vec![ip("127.0.0.1"), ip("127.0.0.2")]));
            let offered = || async { addresses.resolve(HOST).await.unwrap()[0] };
            let two: HashSet<IpAddr> = [offered().await, offered().await].into();
            assert_eq!(two.len(), 2, "nothing is wrong so far");
            addresses.connect_failed();
            probes_end(&addresses).await;
            for _ in 0..4 {
                assert_eq!(offered().await, ip("127.0.0.1"));
            }
            let _revived = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
            // As when its time is over.
            let now = Instant::now();
            addresses.names.lock().get_mut(HOST).unwrap().addresses[1].state = State::Aside(now);
            offered().await;
            probes_end(&addresses).await;
            assert_eq!(HashSet::from([offered().await, offered().await]), two);
        });
    }

    async fn probes_end(addresses: &Addresses) {
        loop {
            let changed = addresses.changed.notified();
            let is_probed = |address: &Address| matches!(address.state, State::Probed { .. });
            if !addresses.names.lock().values().flat_map(|name| &name.addresses).any(is_probed) {
                return;
            }
            changed.await;
        }
    }

    #[test]
    fn an_address_that_gives_no_answers_is_set_aside_without_a_probe() {
        runtime().block_on(async {
            let (addresses, _) = addresses(1, |_| Ok(vec![ip("10.0.0.1"), ip("10.0.0.2")]));
            addresses.resolve(HOST).await.unwrap();
            addresses.no_answer(ip("10.0.0.1"));
            for _ in 0..4 {
                assert_eq!(addresses.resolve(HOST).await.unwrap(), [ip("10.0.0.2")]);
            }
        });
    }

    #[test]
    fn only_the_first_lookup_is_waited_for() {
        runtime().block_on(async {
            let (addresses, lookups) = addresses(1, |lookup| match lookup {
                0 => Ok(vec![ip("10.0.0.1")]),
                _ => Err(io::Error::other("no name server")),
            });
            assert_eq!(addresses.resolve(HOST).await.unwrap(), [ip("10.0.0.1")]);
            addresses.resolve(HOST).await.unwrap();
            assert_eq!(lookups.load(Ordering::SeqCst), 1, "fresh enough");
            let age = |by: Duration| {
                let mut names = addresses.names.lock();
                let name = names.get_mut(HOST).unwrap();
                name.looked_up = name.looked_up.and_then(|at| at.checked_sub(by));
            };
            age(REFRESH_AFTER);
            let changed = addresses.changed.notified();
            assert_eq!(addresses.resolve(HOST).await.unwrap(), [ip("10.0.0.1")]);
            changed.await;
            assert_eq!(lookups.load(Ordering::SeqCst), 2, "in the background");
            age(KEEP_FOR);
            assert_eq!(addresses.resolve(HOST).await.unwrap(), [ip("10.0.0.1")], "old, but there is nothing newer");
            assert_eq!(lookups.load(Ordering::SeqCst), 3);
        });
    }

    #[test]
    fn a_name_without_addresses_is_an_error_until_it_has_one() {
        runtime().block_on(async {
            let (addresses, _) = addresses(1, |lookup| match lookup {
                0 => Err(io::Error::other("no such name")),
                1 => Ok(vec![]),
                _ => Ok(vec![ip("10.0.0.1")]),
            });
            assert_eq!(addresses.resolve(HOST).await.unwrap_err(), "no such name");
            assert_eq!(addresses.resolve(HOST).await.unwrap_err(), "it has no address");
            assert_eq!(addresses.resolve(HOST).await.unwrap(), [ip("10.0.0.1")]);
        });
    }
}
