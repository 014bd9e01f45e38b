//! `kivafs bench kv`: keys over a socket, with the pairs and the requests of kivaloo's own benchmarks.
//!
//! Each row has a server of its own, which ends before the next: so what it wrote is told to the byte,
//! with all that it had put off.

use crate::bench::figures::{Answer, median, millis, p50_and_p99, text};
use crate::bench::flight::{IN_FLIGHT, fly};
use crate::bench::interrupt::Interrupt;
use crate::bench::load::{load_keys, load_tree};
use crate::bench::meter::{Figures, Meter};
use crate::bench::noise::Noise;
use crate::bench::pairs::{GROUP, Pairs, STRING_BYTES};
use crate::bench::scratch::{fresh_name, with_scratch};
use crate::bench::serving::Serving;
use crate::keys::Keys;
use crate::kvlds::client::Client;
use crate::kvlds::message::Request;
use crate::life::place::Place;
use crate::life::plan::StoreOptions;
use crate::life::progress::Progress;
use kivafs::store::Store;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most bytes of an answer to RANGE: what kivaloo's client asks for.
const RANGE_BYTES: u32 = 1 << 20;
/// What the disk does by itself: lone writes, before and after what is compared with them.
const LIMIT_WRITES: u64 = 500;
const LIMIT_BYTES: usize = 4096;
/// How long changes go on before the server is killed.
const UNTIL_KILLED: Duration = Duration::from_secs(1);
/// Longest path of a socket: sun_path of unix(7), without the 0 at its end.
const SOCKET_PATH_MAX: usize = 107;

/// What to run, and where.
pub struct KvPlan {
    /// A fresh directory is made in it.
    pub dir: PathBuf,
    /// Pairs that are loaded.
    pub pairs: usize,
    /// How long each steady state is measured.
    pub seconds: u64,
    /// How often all is done; medians are shown.
    pub rounds: usize,
    /// What stands behind `-o` of each server.
    pub options: String,
    /// The same for the library.
    pub store_options: StoreOptions,
}

/// One round's figures.
struct Round {
    insert: Figures,
    extract: Figures,
    read: Figures,
    hot_spot: Figures,
    update: Figures,
    mixed: Figures,
    lone: Lone,
    restart: Restart,
    /// Bytes that the store occupies: without pairs, and with them.
    size: [u64; 2],
    keys: Figures,
    tree: Figures,
}

struct Lone {
    figures: Figures,
    /// p50 and p99 of a SET, and of what the disk does by itself.
    sets: [Duration; 2],
    limit: [Duration; 2],
}

struct Restart {
    ready: Duration,
    answered: Duration,
}

/// Runs it all; lines go to `out`.
pub fn kv(plan: &KvPlan, out: &mut dyn Write) -> Answer<()> {
    let interrupt = Interrupt::watch()?;
    with_scratch(&plan.dir, &fresh_name(), |dir| {
        if dir.join("socket").as_os_str().len() > SOCKET_PATH_MAX {
            return Err(format!("{}: too long a path for a socket: give a shorter one", plan.dir.display()));
        }
        let mut say = |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(text);
        say(format!(
            "store      in {}: {} pairs of {STRING_BYTES} + {STRING_BYTES} bytes; one connection, {IN_FLIGHT} requests \
             in flight; {}",
            dir.display(),
            plan.pairs,
            if plan.rounds == 1 { "one round".into() } else { format!("medians of {} rounds", plan.rounds) }
        ))?;
        let mut progress = Progress::start();
        progress.tick("making pairs");
        let bench = Bench { plan, dir, pairs: Pairs::of_kivaloo(plan.pairs), interrupt };
        let rounds: Vec<Round> = (1..=plan.rounds)
            .map(|number| bench.round(&mut |row| progress.tick(&format!("round {number} of {}: {row}", plan.rounds))))
            .collect::<Answer<_>>()?;
        drop(progress);
        bench.lines(&rounds).into_iter().try_for_each(say)
    })
}

struct Bench<'a> {
    plan: &'a KvPlan,
    dir: &'a Path,
    pairs: Pairs,
    interrupt: Interrupt,
}

impl Bench<'_> {
    fn round(&self, tell: &mut dyn FnMut(&str)) -> Answer<Round> {
        tell("library");
        let tree = self.by_library(|store| load_tree(store, &self.pairs))?;
        let keys = self.by_library(|store| load_keys(&Keys::on(store.clone()).map_err(text)?, &self.pairs))?;
        let empty = self.empty_store()?;
        tell("bulk insert");
        let insert = self.insert()?;
        let size = [empty, self.occupied()?];
        tell("bulk extract");
        let extract = self.extract()?;
        tell("random read");
        let read = self.random_read()?;
        tell("hot-spot read");
        let hot_spot = self.hot_spot_read()?;
        tell("bulk update");
        let update = self.update()?;
        tell("random mixed");
        let mixed = self.random_mixed()?;
        tell("lone SET");
        let lone = self.lone()?;
        tell("restart");
        let restart = self.restart()?;
        self.clear()?;
        Ok(Round { insert, extract, read, hot_spot, update, mixed, lone, restart, size, keys, tree })
    }

    fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn clear(&self) -> Answer<()> {
        std::fs::remove_file(self.store()).map_err(text)
    }

    /// Bytes that the store's file has of its disk.
    fn occupied(&self) -> Answer<u64> {
        Ok(std::fs::metadata(self.store()).map_err(text)?.blocks() * 512)
    }

    fn empty_store(&self) -> Answer<u64> {
        Serving::start(self.dir, &self.plan.options)?.end()?;
        let occupied = self.occupied()?;
        self.clear()?;
        Ok(occupied)
    }

    /// The same insert without a server, in a store of its own. What it costs is this process's.
    fn by_library(&self, load: impl FnOnce(&Arc<Store>) -> Answer<()>) -> Answer<Figures> {
        let place = Place::File(self.store());
        place.create(&self.plan.store_options.for_creating(None)).map_err(text)?;
        let store = Arc::new(place.open(&self.plan.store_options.for_opening()).map_err(text)?);
        let mut meter = Meter::of_all(std::process::id(), &self.interrupt)?;
        load(&store)?;
        meter.count(self.pairs.len() as u64)?;
        let (done, figures) = meter.finish()?;
        store.close().map_err(text)?;
        let activity = store.activity();
        drop(store);
        self.clear()?;
        Ok(Figures { written: (activity.commit_bytes + activity.data_bytes) as f64 / done as f64, ..figures })
    }

    /// What `work` does through a server; with what it does, in the meter, to the end.
    fn served<'a, T>(
        &'a self,
        meter: impl FnOnce(u32) -> Answer<Meter<'a>>,
        work: impl FnOnce(&mut Client, &mut Meter<'a>) -> Answer<T>,
    ) -> Answer<(T, Figures)> {
        let mut server = Serving::start(self.dir, &self.plan.options)?;
        let mut client = server.client()?;
        let mut meter = meter(server.pid())?;
        let worked = work(&mut client, &mut meter).and_then(|worked| Ok((worked, meter.finish()?)));
        match worked {
            Ok((worked, (done, figures))) => {
                // It goes first, or the server would have to send it away.
                drop(client);
                let written = server.end()? as f64 / done.max(1) as f64;
                Ok((worked, Figures { written, ..figures }))
            }
            Err(why) => {
                self.interrupt.check()?;
                drop(server.end());
                Err(server.complaint().unwrap_or(why))
            }
        }
    }

    fn steady<T>(&self, work: impl FnOnce(&mut Client, &mut Meter<'_>) -> Answer<T>) -> Answer<(T, Figures)> {
        self.served(|pid| Ok(Meter::of_steady(pid, &self.interrupt, self.plan.seconds)), work)
    }

    /// A steady state of `next`.
    fn flown(&self, mut next: impl FnMut(&mut Client)) -> Answer<Figures> {
        let mut next = |client: &mut Client| {
            next(client);
            true
        };
        Ok(self.steady(|client, meter| fly(client, meter, &mut next))?.1)
    }

    fn get(&self, client: &mut Client, number: usize) {
        client.ask(&Request::Get { key: &self.pairs.key(number) });
    }

    fn set(&self, client: &mut Client, number: usize, value: &[u8]) {
        client.ask(&Request::Set { key: &self.pairs.key(number), value });
    }

    fn insert(&self) -> Answer<Figures> {
        let mut numbers = 0..self.pairs.len();
        let mut next = |client: &mut Client| match numbers.next() {
            Some(number) => {
                self.set(client, number, &self.pairs.value(number));
                true
            }
            None => false,
        };
        let all = |pid| Meter::of_all(pid, &self.interrupt);
        Ok(self.served(all, |client, meter| fly(client, meter, &mut next))?.1)
    }

    /// One RANGE behind another, as kivaloo's client asks for them.
    fn extract(&self) -> Answer<Figures> {
        let work = |client: &mut Client, meter: &mut Meter<'_>| {
            let mut start = Vec::new();
            loop {
                let mut pairs = 0;
                start = client.range_part(RANGE_BYTES, &start, b"", &mut |_| pairs += 1).map_err(text)?;
                if pairs == 0 && start.is_empty() {
                    return Err("no pairs are there".into());
                }
                if !meter.count(pairs)? {
                    return Ok(());
                }
            }
        };
        Ok(self.steady(work)?.1)
    }

    fn random_read(&self) -> Answer<Figures> {
        let mut noise = Noise::new(31);
        self.flown(|client| self.get(client, noise.below(self.pairs.len())))
    }

    /// Neighbours in a random order; then those of another place.
    fn hot_spot_read(&self) -> Answer<Figures> {
        let mut noise = Noise::new(32);
        let group = GROUP.min(self.pairs.len());
        let mut order: Vec<usize> = (0..group).collect();
        for end in (1..group).rev() {
            order.swap(end, noise.below(end + 1));
        }
        let (mut start, mut asked) = (0, 0);
        self.flown(|client| {
            if asked % group == 0 {
                start = noise.below(self.pairs.len() / group) * group;
            }
            self.get(client, start + order[asked % group]);
            asked += 1;
        })
    }

    /// All, in order, again and again, with a new value each time.
    fn update(&self) -> Answer<Figures> {
        let count = self.pairs.len();
        let mut asked = 0;
        self.flown(|client| {
            let mut value = self.pairs.value(asked % count).to_vec();
            let generation = asked / count + 1;
            value[STRING_BYTES - 1] = value[STRING_BYTES - 1].wrapping_add(generation as u8);
            self.set(client, asked % count, &value);
            asked += 1;
        })
    }

    /// Sets a random pair to a value that it never had, and that compresses no better.
    fn set_random(&self, client: &mut Client, noise: &mut Noise) {
        let number = noise.below(self.pairs.len());
        let mut value = self.pairs.value(number).to_vec();
        value[..8].copy_from_slice(&noise.next().to_be_bytes());
        self.set(client, number, &value);
    }

    fn random_mixed(&self) -> Answer<Figures> {
        let mut noise = Noise::new(33);
        let mut asked = 0_u64;
        self.flown(|client| {
            // Two and two, as kivaloo's client.
            match asked & 2 {
                0 => self.get(client, noise.below(self.pairs.len())),
                _ => self.set_random(client, &mut noise),
            }
            asked += 1;
        })
    }

    fn lone(&self) -> Answer<Lone> {
        let mut noise = Noise::new(34);
        let mut limit = lone_writes(self.dir).map_err(text)?;
        let (sets, figures) = self.steady(|client, meter| {
            let mut times = Vec::new();
            loop {
                let start = Instant::now();
                self.set_random(client, &mut noise);
                client.flush().map_err(text)?;
                client.receive().map_err(text)?;
                times.push(start.elapsed());
                if !meter.count(1)? {
                    return Ok(times);
                }
            }
        })?;
        limit.extend(lone_writes(self.dir).map_err(text)?);
        Ok(Lone { figures, sets: p50_and_p99(sets), limit: p50_and_p99(limit) })
    }

    fn restart(&self) -> Answer<Restart> {
        let mut noise = Noise::new(35);
        let mut server = Serving::start(self.dir, &self.plan.options)?;
        let mut client = server.client()?;
        let mut meter = Meter::of_all(server.pid(), &self.interrupt)?;
        let since = Instant::now();
        let mut killed = None;
        let mut next = |client: &mut Client| {
            if killed.is_none() && since.elapsed() >= UNTIL_KILLED {
                killed = Some(server.kill());
            }
            self.set_random(client, &mut noise);
            true
        };
        let ended = fly(&mut client, &mut meter, &mut next);
        match killed {
            Some(killed) => killed?,
            None => ended?,
        }
        self.interrupt.check()?;
        let start = Instant::now();
        let mut server = Serving::start(self.dir, &self.plan.options)?;
        let ready = start.elapsed();
        let value = server.client()?.get(&self.pairs.key(0)).map_err(text)?;
        let answered = start.elapsed();
        server.end()?;
        match value {
            Some(_) => Ok(Restart { ready, answered }),
            None => Err("a pair is not there after kill -9".into()),
        }
    }

    fn lines(&self, rounds: &[Round]) -> Vec<String> {
        let count = self.pairs.len();
        let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure));
        let row = |name: &str, figures: &dyn Fn(&Round) -> Figures, what: &str| {
            let rates = || rounds.iter().map(|round| figures(round).rate / 1e3);
            let spread = match rounds.len() {
                1 => String::new(),
                _ => format!(" ({:.1} to {:.1})", rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max)),
            };
            format!(
                "{name:<10} {:.1} k/s{spread}, {:.2} us of CPU and {:.1} bytes written each: {what}",
                median(rates()),
                of(&|round| figures(round).cpu),
                of(&|round| figures(round).written),
            )
        };
        let group = GROUP.min(count);
        let [sets_p50, sets_p99, limit_p50, limit_p99] = [
            of(&|round| millis(round.lone.sets[0])),
            of(&|round| millis(round.lone.sets[1])),
            of(&|round| millis(round.lone.limit[0])),
            of(&|round| millis(round.lone.limit[1])),
        ];
        let ratio = of(&|round| millis(round.lone.sets[0]) / millis(round.lone.limit[0]));
        vec![
            row("insert", &|round| round.insert, "SET of all, in order, into an empty store"),
            row("extract", &|round| round.extract, "RANGE of all, again and again"),
            row("read", &|round| round.read, "GET, random"),
            row("hot spot", &|round| round.hot_spot, &format!("GET of {group} neighbours in random order, and more")),
            row("update", &|round| round.update, "SET of all, in order, again and again"),
            row("mixed", &|round| round.mixed, "GET and SET, half each, random"),
            row(
                "lone SET",
                &|round| round.lone.figures,
                &format!(
                    "one at a time: p50 {sets_p50:.3} ms, p99 {sets_p99:.3} ms; \
                     pwrite + fdatasync of {LIMIT_BYTES} bytes p50 {limit_p50:.3} ms, p99 {limit_p99:.3} ms: \
                     {ratio:.2} times that"
                ),
            ),
            format!(
                "restart    after kill -9 amid random SETs: ready after {:.1} ms, first answer after {:.1} ms",
                of(&|round| millis(round.restart.ready)),
                of(&|round| millis(round.restart.answered))
            ),
            format!(
                "size       {:.1} bytes a pair after the load, {:.1} without what an empty store takes",
                of(&|round| round.size[1] as f64 / count as f64),
                of(&|round| round.size[1].saturating_sub(round.size[0]) as f64 / count as f64)
            ),
            row("keys", &|round| round.keys, "the same insert by the library, without a socket, in this process"),
            row("tree", &|round| round.tree, "the same into the tree itself: pairs that are no files"),
        ]
    }
}

/// How long a write to a plain file takes to be durable, one after another.
fn lone_writes(dir: &Path) -> std::io::Result<Vec<Duration>> {
    let path = dir.join("limit");
    let file = File::create(&path)?;
    // Its blocks are there: only bytes are to be made durable.
    file.write_all_at(&vec![0; LIMIT_WRITES as usize * LIMIT_BYTES], 0)?;
    file.sync_all()?;
    let mut noise = Noise::new(36);
    let times = (0..LIMIT_WRITES)
        .map(|number| {
            let bytes = noise.bytes(LIMIT_BYTES);
            let start = Instant::now();
            file.write_all_at(&bytes, number * LIMIT_BYTES as u64)?;
            file.sync_data()?;
            Ok(start.elapsed())
        })
        .collect::<std::io::Result<_>>()?;
    std::fs::remove_file(&path)?;
    Ok(times)
}
