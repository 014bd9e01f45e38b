//! A bucket of the real server behind the fault proxy: a store in it, machines that reach it over a line
//! that breaks, and what the proxy has seen of them all.

use crate::bucket_client::open;
use crate::support::bucket::SEAL_MAGIC;
use crate::support::ceph::{ceph, fresh_prefix};
use crate::support::medium::Medium;
use crate::support::random::Random;
use crate::support::store::{Sizes, create_in};
use crate::support::succession::{Ending, Line, Network};
use crate::weather::WEATHER;
use bytes::Bytes;
use kivafs::backend::{Done, Objects, S3, Usage};
use kivafs::store::{OpenError, OpenOptions, Store};
use kivafs_fault_proxy::{BodySum, Counts, Door, Entry, Kind, Proxy, ProxyOptions, Violation};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How many addresses the bucket has, each with stale answers of its own.
const ADDRESSES: usize = 3;

/// What becomes of the change at which a line is cut; none of it is in the weather. Stuck before or after the
/// server has acted, or half of it sent off.
const CUTS: [&str; 3] = ["hold", "hold-reply", "cut-request"];

/// A prefix of its own, in the real server's bucket, and a proxy of its own before it.
pub struct Proxied {
    proxy: Arc<Proxy>,
    prefix: String,
    /// What happens to requests once there is a store.
    plan: String,
}

impl Proxied {
    /// Once a store is made in it everything may happen, and each of the first so many lines is cut at one
    /// of its first changes.
    pub fn new(seed: u64, lines: usize) -> Proxied {
        let options = ProxyOptions { seed, addresses: ADDRESSES, ..ProxyOptions::to(&ceph().endpoint) };
        let proxy = Proxy::start(options).expect("ports on 127.0.0.1 to 127.0.0.3");
        let mut random = Random::new(seed);
        let mut plan = String::new();
        // The proxy's own door is 0.
        for door in 1..=lines {
            let (nth, cut) = (1 + random.within(0..10), CUTS[random.within(0..CUTS.len())]);
            writeln!(plan, "put,delete * door={door} nth={nth} {cut}").expect("memory");
        }
        // After them: of faults that exclude each other the first happens.
        let plan = plan + WEATHER;
        Proxied { proxy: Arc::new(proxy), prefix: fresh_prefix(), plan }
    }

    /// A line of a new machine to so many of the addresses, from that one on.
    pub fn line(&self, first: usize, addresses: usize) -> Arc<ProxiedLine> {
        let door = self.proxy.door().expect("a free port");
        let at = door.addresses();
        let client = |index: usize| {
            let endpoint = format!("http://{}", at[(first + index) % ADDRESSES]);
            open(&endpoint, ceph().bucket, |options| options.prefix.clone_from(&self.prefix))
        };
        let mut newest = 0;
        self.proxy.wait(Duration::ZERO, |log| {
            newest = log.last().map_or(0, |entry| entry.number);
            true
        });
        Arc::new(ProxiedLine {
            proxy: self.proxy.clone(),
            number: door.number(),
            clients: (0..addresses).map(client).collect(),
            door: Mutex::new(Some(door)),
            turn: AtomicUsize::new(0),
            since: newest,
            is_settled: AtomicBool::new(false),
        })
    }

    pub fn counts(&self) -> Counts {
        self.proxy.counts()
    }

    /// What was written, as counted from the log.
    pub fn written(&self) -> Written {
        Written::count(&self.proxy.log())
    }

    /// Names that were written with two contents, as the proxy has judged. One case is none: whoever was
    /// late in taking over may seal, in an epoch that was cleaned, the place of a commit that was
    /// deleted; it learns from the epoch that follows that it has nothing (R8). (That seal is deleted, too,
    /// when the epoch is cleaned again: what lies there later tells nothing.)
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = self.proxy.violations();
        violations.retain(|violation| match violation {
            Violation::CreatedTwice { now, .. } => !is_seal(now),
            Violation::Overwritten { .. } | Violation::Rebuilt { .. } => true,
        });
        violations
    }
}

fn is_seal(body: &BodySum) -> bool {
    body.head == *SEAL_MAGIC
}

impl Medium for Proxied {
    /// Past all faults, so that there is a store in any case; and by the proxy's own door, since whoever
    /// makes a store tries the server out by creates that race.
    fn create(&self, sizes: Sizes) -> Result<(), OpenError> {
        let endpoint = self.proxy.endpoint();
        let bucket = open(&endpoint, ceph().bucket, |options| options.prefix.clone_from(&self.prefix));
        create_in(Arc::new(bucket), sizes)?;
        self.proxy.plan(&self.plan);
        Ok(())
    }

    fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        // Who had it is this very process, which lives.
        let options = OpenOptions { takeover: !options.read_only, ..options.clone() };
        Store::open_in(self.line(0, ADDRESSES), &options)
    }

    /// Under a clear sky: what a reader finds may lag (R12), and these writers delete at once what no longer
    /// belongs to the newest state, without the grace that readers elsewhere need.
    fn check(&self) -> Result<Vec<String>, OpenError> {
        self.proxy.plan("");
        let checked = Store::check_in(self.line(1, ADDRESSES), true);
        self.proxy.plan(&self.plan);
        checked
    }
}

impl Network for Proxied {
    type Line = ProxiedLine;

    const PATIENCE_WHEN_CUT: Duration = Duration::from_millis(500);

    /// All lines are cut, whatever is to become of their machines: who is not to die is healed.
    fn connect(&self, _: Ending, random: &mut Random) -> Arc<ProxiedLine> {
        // What the machine before has left behind arrives before this one looks; else while it has the
        // store, or later.
        if random.one_in(3) {
            self.proxy.release();
        }
        self.line(random.within(0..ADDRESSES), 1 + random.within(0..ADDRESSES))
    }

    fn settle(&self) {
        self.proxy.release();
        // The client of a late request has its answer long before.
        let has_landed = |entry: &Entry| entry.server.is_some() || !entry.faults.contains(&"late");
        let have_all = |log: &[Entry]| log.iter().all(|entry| entry.ended.is_some() && has_landed(entry));
        assert!(self.proxy.wait(Duration::from_secs(60), have_all), "requests are stuck in the proxy");
    }
}

/// One machine's way to the bucket: a door of its own, and its requests to that door's addresses in turn.
pub struct ProxiedLine {
    proxy: Arc<Proxy>,
    /// The door's.
    number: usize,
    /// Of each address one.
    clients: Vec<S3>,
    door: Mutex<Option<Door>>,
    turn: AtomicUsize,
    /// The number of the newest request before any of this line.
    since: u64,
    /// It was healed or severed: that a request of it was broken off once no longer counts.
    is_settled: AtomicBool,
}

impl ProxiedLine {
    fn next(&self) -> &S3 {
        &self.clients[self.turn.fetch_add(1, Ordering::Relaxed) % self.clients.len()]
    }

    fn sees_cut(&self, log: &[Entry]) -> bool {
        let is_settled = self.is_settled.load(Ordering::Relaxed);
        let is_cut = |entry: &Entry| entry.held || (!is_settled && entry.faults.contains(&"cut-request"));
        let lately = log.iter().rev().take_while(|entry| entry.number > self.since);
        lately.filter(|entry| entry.door == self.number).any(is_cut)
    }
}

impl Line for ProxiedLine {
    fn is_cut(&self) -> bool {
        let mut is_cut = false;
        self.proxy.wait(Duration::ZERO, |log| {
            is_cut = self.sees_cut(log);
            true
        });
        is_cut
    }

    fn wait_a_moment(&self) {
        self.proxy.wait(Duration::from_millis(5), |log| self.sees_cut(log));
    }

    fn heal(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
        self.proxy.release();
    }

    fn sever(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
        drop(self.door.lock().take());
    }
}

impl Objects for ProxiedLine {
    fn create(&self, name: &str, body: Bytes, done: Done<()>) {
        self.next().create(name, body, done);
    }

    fn put(&self, name: &str, body: Bytes, done: Done<()>) {
        self.next().put(name, body, done);
    }

    fn get(&self, name: &str, range: Option<Range<u64>>, done: Done<Bytes>) {
        self.next().get(name, range, done);
    }

    fn list(&self, prefix: &str, max: u32, done: Done<Vec<String>>) {
        self.next().list(prefix, max, done);
    }

    fn delete(&self, names: Vec<String>, done: Done<()>) {
        self.next().delete(names, done);
    }

    /// Of one of the addresses: what goes through a proxy is counted there.
    fn usage(&self) -> Usage {
        self.clients[0].usage()
    }

    fn name(&self) -> &str {
        self.clients[0].name()
    }
}

/// Names and what was written under them, counted from the proxy's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub names: usize,
    /// PUTs whose body has come whole.
    pub attempts: usize,
    /// Names that the server took with more than one content, seals apart.
    pub twice: Vec<String>,
}

impl Written {
    fn count(log: &[Entry]) -> Written {
        let is_put = |entry: &&Entry| matches!(entry.kind, Kind::Put | Kind::Create) && entry.body.is_some();
        let mut bodies: HashMap<&str, HashSet<(u64, u128)>> = HashMap::new();
        let mut names = HashSet::new();
        let mut attempts = 0;
        for entry in log.iter().filter(is_put) {
            attempts += 1;
            if entry.server == Some(200)
                && let Some(body) = entry.body
            {
                names.insert(&entry.name);
                if !is_seal(&body) {
                    bodies.entry(&entry.name).or_default().insert((body.length, body.checksum));
                }
            }
        }
        let twice = bodies.iter().filter(|(_, bodies)| bodies.len() > 1).map(|(name, _)| (*name).to_owned());
        Written { names: names.len(), attempts, twice: twice.collect() }
    }
}
