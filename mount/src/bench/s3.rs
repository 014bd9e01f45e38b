//! `kivafs bench s3`: how close a store in a bucket comes to what its server can do.

use crate::bench::blocks::Blocks;
use crate::bench::figures::{Answer, MIB, median, millis, p50_and_p99, text};
use crate::bench::load::load_tree;
use crate::bench::mounted::{Mounted, durable, sync_dir};
use crate::bench::noise::Noise;
use crate::bench::pairs::{Pair, Pairs, STRING_BYTES};
use crate::bench::process::peak_memory;
use crate::bench::scratch::{fresh_name, with_scratch};
use crate::bench::server::{self, Server};
use crate::life::place::{Bucket, Place};
use kivafs::backend::{ObjectError, Objects, S3, S3Options, Usage};
use kivafs::store::{CreateOptions, OPENING_PATIENCE, OpenOptions};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const FSYNCS: usize = 100;
const THREADS: usize = 16;
const SMALL_FILES: usize = 5000;
const SMALL_BYTES: usize = 1024;
const PAIRS: usize = 1 << 20;

/// What to run, and where.
pub struct Plan {
    /// The bucket, and what everything is below; a fresh name is added.
    pub s3: S3Options,
    /// What stands behind `-o` at each mount.
    pub options: String,
    /// Where directories are made to mount at, and the local store to compare with.
    pub scratch: PathBuf,
    /// Bytes of the big file.
    pub big_bytes: u64,
    /// How often it is written and read.
    pub rounds: usize,
    /// Files of the store that is mounted again.
    pub files: usize,
    /// How long nothing is done.
    pub idle: Duration,
}

/// Runs it all; lines go to `out`.
pub fn s3(mut plan: Plan, out: &mut dyn Write) -> Answer<()> {
    let fresh = fresh_name();
    plan.s3.prefix = format!("{}/{fresh}", plan.s3.prefix).trim_start_matches('/').to_string();
    with_scratch(&plan.scratch.clone(), &fresh, |dir| {
        plan.scratch = dir.to_path_buf();
        let objects = S3::open(plan.s3.clone()).map_err(text)?;
        let done = run(&plan, &objects, out);
        done.and(server::clear(&objects).map_err(text))
    })
}

fn run(plan: &Plan, objects: &dyn Objects, out: &mut dyn Write) -> Answer<()> {
    let mut say = |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(text);
    let mut server = Server::new(objects);
    say(format!(
        "server     4 KiB create p50 {:.1} ms; 8 MiB objects: PUT {:.0} MiB/s, GET {:.0} MiB/s",
        1e3 * server.round_trip().map_err(text)?,
        server.put().map_err(text)? / MIB,
        server.get().map_err(text)? / MIB
    ))?;
    let place = place_of(plan, "mount");
    let store = place.to_string();
    let mut mounted = Mounted::new(store.clone(), plan.options.clone(), plan.scratch.join("mount")).map_err(text)?;
    mounted.mount(&["--create"]).map_err(text)?;
    say(lone_fsyncs(&mut mounted, &place, &mut server)?)?;
    say(many_fsyncs(&mut mounted, &place, &mut server)?)?;
    say(small_files(&mut mounted, &place)?)?;
    say(idle(&mut mounted, &place, plan.idle)?)?;
    big_file(&mut mounted, &place, plan, &server)?.into_iter().try_for_each(&mut say)?;
    say(mount_again(&mut mounted, plan)?)?;
    say(takeover(&mut mounted, &place, plan, &mut server)?)?;
    say(bulk_insert(plan, &server)?)
}

fn place_of(plan: &Plan, name: &str) -> Place {
    let prefix = format!("{}/{name}", plan.s3.prefix);
    Place::Bucket(Bucket::new(S3Options { prefix, ..plan.s3.clone() }, OPENING_PATIENCE))
}

/// Requests between two marks; the first mark's own commit is not counted.
fn between(before: Usage, after: Usage) -> Usage {
    Usage {
        puts: after.puts - before.puts - 1,
        gets: after.gets - before.gets,
        lists: after.lists - before.lists,
        deletes: after.deletes - before.deletes,
        bytes_up: after.bytes_up - before.bytes_up,
        bytes_down: after.bytes_down - before.bytes_down,
    }
}

/// What `work` gives, and the server's figure around it: the mean of before and after.
fn beside<T>(
    mut measure: impl FnMut() -> Result<f64, ObjectError>,
    work: impl FnOnce() -> Answer<T>,
) -> Answer<(T, f64)> {
    let before = measure().map_err(text)?;
    let done = work()?;
    let after = measure().map_err(text)?;
    Ok((done, (before + after) / 2.0))
}

fn lone_fsyncs(mounted: &mut Mounted, place: &Place, server: &mut Server<'_>) -> Answer<String> {
    let before = mounted.mark(place)?;
    let file = File::create(mounted.dir.join("lone")).map_err(text)?;
    file.sync_all().map_err(text)?;
    let (times, round_trip) = beside(|| server.round_trip(), || fsyncs(&file, 2).map_err(text))?;
    let after = mounted.mark(place)?;
    let [p50, p99] = p50_and_p99(times);
    Ok(format!(
        "fsync, 1   p50 {:.1} ms = {:.2} round trips (bound 1.2), p99 {:.1} ms; {:.2} PUT each (bound 1)",
        millis(p50),
        p50.as_secs_f64() / round_trip,
        millis(p99),
        // The file's own creation is one, too.
        between(before, after).puts as f64 / (FSYNCS + 1) as f64
    ))
}

fn fsyncs(file: &File, seed: u64) -> std::io::Result<Vec<Duration>> {
    let mut noise = Noise::new(seed);
    (0..FSYNCS)
        .map(|number| {
            file.write_all_at(&noise.bytes(4096), (number % 16 * 4096) as u64)?;
            let start = Instant::now();
            file.sync_all()?;
            Ok(start.elapsed())
        })
        .collect()
}

fn many_fsyncs(mounted: &mut Mounted, place: &Place, server: &mut Server<'_>) -> Answer<String> {
    let before = mounted.mark(place)?;
    let dir = &mounted.dir;
    let work = || {
        let start = Instant::now();
        thread::scope(|scope| {
            let one = |number| move || fsyncs(&File::create(dir.join(format!("many-{number}")))?, number as u64 + 3);
            let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(one(number))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("measuring does not panic").map(drop))
        })
        .map_err(text)?;
        Ok(start.elapsed())
    };
    let (time, round_trip) = beside(|| server.round_trip(), work)?;
    let puts = between(before, mounted.mark(place)?).puts;
    let round_trips = time.as_secs_f64() / round_trip;
    Ok(format!(
        "fsync, 16  {:.0}/s; {puts} PUT for {} fsyncs, {:.2} a round trip (bound 1)",
        (THREADS * FSYNCS) as f64 / time.as_secs_f64(),
        THREADS * FSYNCS,
        puts as f64 / round_trips
    ))
}

fn small_files(mounted: &mut Mounted, place: &Place) -> Answer<String> {
    let mut noise = Noise::new(7);
    let dir = mounted.dir.join("small");
    let before = mounted.mark(place)?;
    let start = Instant::now();
    std::fs::create_dir(&dir).map_err(text)?;
    for number in 0..SMALL_FILES {
        std::fs::write(dir.join(format!("file-{number}")), noise.bytes(SMALL_BYTES)).map_err(text)?;
    }
    sync_dir(&dir).map_err(text)?;
    let time = start.elapsed();
    let puts = between(before, mounted.mark(place)?).puts;
    let bound = 3.0 + (SMALL_FILES * SMALL_BYTES) as f64 / (8.0 * MIB);
    Ok(format!(
        "small      {SMALL_FILES} files of {SMALL_BYTES} bytes and one sync: {:.1} s, {puts} PUT (bound {bound:.1})",
        time.as_secs_f64()
    ))
}

fn idle(mounted: &mut Mounted, place: &Place, time: Duration) -> Answer<String> {
    // What went before may still have a checkpoint under way.
    thread::sleep(Duration::from_secs(8));
    let before = mounted.mark(place)?;
    thread::sleep(time);
    let requests = between(before, mounted.mark(place)?);
    let all = requests.puts + requests.gets + requests.lists + requests.deletes;
    Ok(format!("idle       {} s: {all} requests (bound 0)", time.as_secs()))
}

fn big_file(mounted: &mut Mounted, place: &Place, plan: &Plan, server: &Server<'_>) -> Answer<[String; 2]> {
    let (mut writing, mut reading) = (Vec::new(), Vec::new());
    let mut peaks = [0, 0];
    for round in 0..plan.rounds {
        let path = mounted.dir.join(format!("big-{round}"));
        let write = || timed(plan.big_bytes, || write_file(&path, plan.big_bytes, round as u64));
        writing.push(beside(|| server.put(), write)?);
        peaks[0] = peaks[0].max(peak_memory(mounted.pid(place)?));
        mounted.umount().map_err(text)?;
        mounted.mount(&[]).map_err(text)?;
        let read = || timed(plan.big_bytes, || read_file(&path));
        reading.push(beside(|| server.get(), read)?);
        peaks[1] = peaks[1].max(peak_memory(mounted.pid(place)?));
        std::fs::remove_file(&path).map_err(text)?;
    }
    let line = |doing: &str, rates: Vec<(f64, f64)>, peak: u64| {
        let each: Vec<String> =
            rates.iter().map(|(ours, server)| format!("{:.0}/{:.0}", ours / MIB, server / MIB)).collect();
        format!(
            "{doing:<10} {} MiB: {} MiB/s, ours beside the server's; median ratio {:.2} (bound 0.8); peak memory {} MiB",
            plan.big_bytes >> 20,
            each.join(", "),
            median(rates.iter().map(|(ours, server)| ours / server)),
            peak >> 10
        )
    };
    Ok([line("write+sync", writing, peaks[0]), line("read cold", reading, peaks[1])])
}

/// Bytes a second.
fn timed(bytes: u64, work: impl FnOnce() -> std::io::Result<()>) -> Answer<f64> {
    let start = Instant::now();
    work().map_err(text)?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

fn write_file(path: &Path, bytes: u64, seed: u64) -> std::io::Result<()> {
    let blocks = Blocks::noise(seed);
    let mut file = File::create(path)?;
    for number in 0..bytes >> 20 {
        file.write_all(&blocks.block(number))?;
    }
    file.sync_all()
}

fn read_file(path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn mount_again(mounted: &mut Mounted, plan: &Plan) -> Answer<String> {
    let start = Instant::now();
    let dir = &mounted.dir;
    for group in 0..plan.files.div_ceil(1000) {
        let group_dir = dir.join(format!("group-{group}"));
        std::fs::create_dir(&group_dir).map_err(text)?;
        let mut noise = Noise::new(group as u64 + 1000);
        for number in 0..1000.min(plan.files - group * 1000) {
            std::fs::write(group_dir.join(format!("file-{number}")), noise.bytes(100)).map_err(text)?;
        }
    }
    sync_dir(dir).map_err(text)?;
    let made = start.elapsed();
    mounted.umount().map_err(text)?;
    let start = Instant::now();
    mounted.mount(&[]).map_err(text)?;
    let time = start.elapsed();
    let said = mounted.umount().map_err(text)?;
    mounted.mount(&[]).map_err(text)?;
    Ok(format!(
        "mount      {} files (made in {:.0} s): mounted in {:.0} ms; this mount and its end: {} (bound 10 GET, 1 LIST)",
        plan.files,
        made.as_secs_f64(),
        millis(time),
        said.trim().replace('\n', "; ")
    ))
}

/// The holder is stopped, as a machine is that cannot be reached any more.
fn takeover(mounted: &mut Mounted, place: &Place, plan: &Plan, server: &mut Server<'_>) -> Answer<String> {
    let holder = nix::unistd::Pid::from_raw(mounted.pid(place)? as i32);
    let taker = Mounted::new(place.to_string(), plan.options.clone(), plan.scratch.join("taker")).map_err(text)?;
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGSTOP).map_err(text)?;
    let start = Instant::now();
    let taken = taker.mount(&["--takeover"]).and_then(|()| durable(&taker.dir.join("taken"), b"x"));
    let time = start.elapsed();
    // It is fenced, and has nothing to make durable.
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGKILL).map_err(text)?;
    taken.map_err(text)?;
    taker.umount().map_err(text)?;
    let bound = Duration::from_secs_f64(3.0 + 20.0 * server.round_trip().map_err(text)?);
    Ok(format!(
        "takeover   from a holder that does not answer, to the first durable write: {:.0} ms (bound {:.0} ms)",
        millis(time),
        millis(bound)
    ))
}

/// Where the server shares the machine's processors, it takes its part of them from whoever inserts: so what
/// it needs alone for as many bytes stands beside.
fn bulk_insert(plan: &Plan, server: &Server<'_>) -> Answer<String> {
    let mut noise = Noise::new(11);
    let local = Place::File(plan.scratch.join("local.kivafs"));
    let bucket = place_of(plan, "bulk");
    let mut rates = [Vec::new(), Vec::new()];
    let (mut puts, mut bytes) = (0, 0);
    let put_rate = server.put().map_err(text)?;
    for round in 0..3 {
        let pairs = Pairs::new((0..PAIRS).map(|_| pair(round, &mut noise)).collect());
        for (place, rates) in [&local, &bucket].into_iter().zip(&mut rates) {
            if round == 0 {
                place.create(&CreateOptions::default()).map_err(text)?;
            }
            let options = OpenOptions { cache_bytes: 256 << 20, ..OpenOptions::default() };
            let store = place.open(&options).map_err(text)?;
            let before = store.usage().unwrap_or_default();
            let start = Instant::now();
            load_tree(&store, &pairs)?;
            rates.push(PAIRS as f64 / start.elapsed().as_secs_f64());
            store.close().map_err(text)?;
            let after = store.usage().unwrap_or_default();
            (puts, bytes) = (after.puts - before.puts, after.bytes_up - before.bytes_up);
        }
    }
    let [local, bucket] = rates.map(median);
    Ok(format!(
        "insert     {PAIRS} sorted pairs of {STRING_BYTES} + {STRING_BYTES} bytes by the library: {:.0} k/s, local file {:.0} k/s: {:.2} of it (bound 0.8); \
         {puts} PUT, {:.0} bytes a pair; in seconds: ours {:.2}, local file {:.2}, the server alone for these bytes {:.2}",
        bucket / 1e3,
        local / 1e3,
        bucket / local,
        bytes as f64 / PAIRS as f64,
        PAIRS as f64 / bucket,
        PAIRS as f64 / local,
        bytes as f64 / put_rate,
    ))
}

/// Each round has keys of its own, behind those of the one before.
fn pair(round: u8, noise: &mut Noise) -> Pair {
    let mut pair = [0; 2 * STRING_BYTES];
    pair.copy_from_slice(&noise.bytes(2 * STRING_BYTES));
    pair[0] = round;
    pair
}
