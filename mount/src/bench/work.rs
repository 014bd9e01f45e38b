//! What is done in a directory, and measured: the same whatever file system it is of.
//!
//! Names are made up before the clock starts. What `prepare_*` makes is durable, and not measured.

use crate::bench::blocks::{BLOCK_BYTES, Blocks};
use crate::bench::clients::{Client, Sample, run, run_beside};
use crate::bench::figures::{Answer, text};
use crate::bench::interrupt::Interrupt;
use crate::bench::mounted::sync_dir;
use crate::bench::noise::Noise;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a small file, and of what is written to be durable.
pub const SMALL_BYTES: usize = 1024;
pub const PAGE_BYTES: usize = 4096;
/// Files of a directory, where there are more directories.
const GROUP: usize = 1000;

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Small files.
    pub files: usize,
    /// Bytes of a large one.
    pub big_bytes: u64,
}

impl Sizes {
    /// Random reads and writes.
    fn random(self) -> usize {
        self.files.div_ceil(2)
    }

    /// What each of so many clients makes durable.
    fn durable(self, clients: usize) -> usize {
        self.files.div_ceil(if clients == 1 { 10 } else { 40 })
    }
}

/// Where, and how much of it.
pub struct Job<'a> {
    pub dir: &'a Path,
    pub sizes: Sizes,
    pub clients: usize,
    pub interrupt: &'a Interrupt,
}

impl Job<'_> {
    fn run(&self, work: impl Fn(usize, &mut Client<'_>) -> io::Result<()> + Sync) -> Answer<Sample> {
        run(self.interrupt, self.clients, work)
    }

    /// Makes a directory for each client.
    fn client_dirs(&self, name: &str) -> Answer<Vec<PathBuf>> {
        let make = |client| {
            let dir = self.dir.join(format!("{name}-{}-{client}", self.clients));
            fs::create_dir(&dir).map(|()| dir)
        };
        (0..self.clients).map(make).collect::<io::Result<_>>().map_err(text)
    }

    /// One client does `thing` to each path.
    fn each(&self, paths: &[PathBuf], thing: impl Fn(&Path) -> io::Result<()> + Sync) -> Answer<Sample> {
        self.run(|_, client| paths.iter().try_for_each(|path| client.step(1, || thing(path))))
    }

    fn big(&self, what: &str) -> PathBuf {
        self.dir.join(format!("big-{what}"))
    }
}

fn names(dir: &Path, letter: char, count: usize) -> Vec<PathBuf> {
    (0..count).map(|number| dir.join(format!("{letter}{number}"))).collect()
}

/// The directory in which one client has made the small files, and their names there.
fn small_dir(job: &Job<'_>) -> PathBuf {
    job.dir.join("small-1-0")
}

fn small_files(job: &Job<'_>, letter: char) -> Vec<PathBuf> {
    names(&small_dir(job), letter, job.sizes.files)
}

pub fn create(job: &Job<'_>) -> Answer<Sample> {
    let each = job.sizes.files.div_ceil(job.clients);
    let bytes = Noise::new(41).bytes(SMALL_BYTES * each);
    let paths: Vec<_> = job.client_dirs("small")?.iter().map(|dir| names(dir, 'f', each)).collect();
    job.run(|number, client| {
        let mut all = paths[number].iter().zip(bytes.chunks(SMALL_BYTES));
        all.try_for_each(|(path, bytes)| client.step(1, || File::create_new(path)?.write_all(bytes)))
    })
}

pub fn stat(job: &Job<'_>) -> Answer<Sample> {
    job.each(&small_files(job, 'f'), |path| fs::symlink_metadata(path).map(drop))
}

pub fn list(job: &Job<'_>) -> Answer<Sample> {
    let dir = small_dir(job);
    job.run(|_, client| {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            client.step(1, || entry.metadata().map(drop))?;
        }
        Ok(())
    })
}

pub fn read_small(job: &Job<'_>) -> Answer<Sample> {
    job.each(&small_files(job, 'f'), |path| {
        let mut buffer = [0; SMALL_BYTES];
        File::open(path)?.read_exact(&mut buffer)
    })
}

pub fn rename(job: &Job<'_>) -> Answer<Sample> {
    let (from, to) = (small_files(job, 'f'), small_files(job, 'g'));
    job.run(|_, client| from.iter().zip(&to).try_for_each(|(from, to)| client.step(1, || fs::rename(from, to))))
}

pub fn unlink(job: &Job<'_>) -> Answer<Sample> {
    job.each(&small_files(job, 'g'), |path| fs::remove_file(path))
}

pub fn write_noise(job: &Job<'_>) -> Answer<Sample> {
    write_blocks(job, "noise", &Blocks::noise(1))
}

pub fn write_text(job: &Job<'_>) -> Answer<Sample> {
    write_blocks(job, "text", &Blocks::text(2))
}

fn write_blocks(job: &Job<'_>, what: &str, blocks: &Blocks) -> Answer<Sample> {
    let path = job.big(what);
    job.run(|_, client| {
        let mut file = File::create_new(&path)?;
        for number in 0..job.sizes.big_bytes / BLOCK_BYTES as u64 {
            client.step(BLOCK_BYTES as u64, || file.write_all(&blocks.block(number)))?;
        }
        client.step(0, || file.sync_all())
    })
}

pub fn read_noise(job: &Job<'_>) -> Answer<Sample> {
    read_blocks(job, "noise")
}

pub fn read_text(job: &Job<'_>) -> Answer<Sample> {
    read_blocks(job, "text")
}

fn read_blocks(job: &Job<'_>, what: &str) -> Answer<Sample> {
    let path = job.big(what);
    job.run(|_, client| {
        let (mut file, mut buffer) = (File::open(&path)?, vec![0; BLOCK_BYTES]);
        for _ in 0..job.sizes.big_bytes / BLOCK_BYTES as u64 {
            client.step(BLOCK_BYTES as u64, || file.read_exact(&mut buffer))?;
        }
        Ok(())
    })
}

/// Where random reads and writes go.
fn random_offsets(job: &Job<'_>, seed: u64) -> Vec<u64> {
    let (mut noise, pages) = (Noise::new(seed), job.sizes.big_bytes as usize / PAGE_BYTES);
    (0..job.sizes.random()).map(|_| (noise.below(pages) * PAGE_BYTES) as u64).collect()
}

pub fn read_random(job: &Job<'_>) -> Answer<Sample> {
    let (path, offsets) = (job.big("noise"), random_offsets(job, 42));
    job.run(|_, client| {
        let (file, mut page) = (File::open(&path)?, [0; PAGE_BYTES]);
        offsets.iter().try_for_each(|offset| client.step(1, || file.read_exact_at(&mut page, *offset)))
    })
}

pub fn write_random(job: &Job<'_>) -> Answer<Sample> {
    let (path, offsets) = (job.big("noise"), random_offsets(job, 43));
    let pages = Noise::new(44).bytes(PAGE_BYTES * offsets.len());
    job.run(|_, client| {
        let file = File::options().write(true).open(&path)?;
        let mut all = offsets.iter().zip(pages.chunks(PAGE_BYTES));
        all.try_for_each(|(offset, page)| client.step(1, || file.write_all_at(page, *offset)))
    })
}

/// A file for each client, whose blocks are there: only bytes are to be made durable.
pub fn prepare_durable_writes(job: &Job<'_>) -> Answer<()> {
    for client in 0..job.clients {
        let mut file = File::create(durable_file(job, client)).map_err(text)?;
        file.write_all(&vec![0; PAGE_BYTES * job.sizes.durable(job.clients)]).map_err(text)?;
        file.sync_all().map_err(text)?;
    }
    Ok(())
}

fn durable_file(job: &Job<'_>, client: usize) -> PathBuf {
    job.dir.join(format!("durable-{}-{client}", job.clients))
}

pub fn write_durably(job: &Job<'_>) -> Answer<Sample> {
    job.run(|number, client| durable_writes(job, number, client))
}

fn durable_writes(job: &Job<'_>, number: usize, client: &mut Client<'_>) -> io::Result<()> {
    let count = job.sizes.durable(job.clients);
    let file = File::options().write(true).open(durable_file(job, number))?;
    let pages = Noise::new(45 + number as u64).bytes(PAGE_BYTES * count);
    let mut all = pages.chunks(PAGE_BYTES).enumerate();
    all.try_for_each(|(at, page)| {
        client.timed(|| {
            file.write_all_at(page, (at * PAGE_BYTES) as u64)?;
            file.sync_data()
        })
    })
}

/// The same while a large file is written, over and over.
pub fn write_durably_beside_copy(job: &Job<'_>) -> Answer<Sample> {
    let (path, blocks) = (job.big("copy"), Blocks::noise(3));
    let copy = |client: &mut Client<'_>| {
        let (file, count) = (File::create(&path)?, (job.sizes.big_bytes / BLOCK_BYTES as u64).max(1));
        for number in (0..).take_while(|_| !client.is_stopped()) {
            file.write_all_at(&blocks.block(number), number % count * BLOCK_BYTES as u64)?;
        }
        Ok(())
    };
    run_beside(job.interrupt, job.clients, |number, client| durable_writes(job, number, client), copy)
}

pub fn prepare_durable_files(job: &Job<'_>) -> Answer<()> {
    job.client_dirs("durable-files")?;
    sync_dir(job.dir).map_err(text)
}

pub fn create_durably(job: &Job<'_>) -> Answer<Sample> {
    let count = job.sizes.durable(job.clients);
    let bytes = Noise::new(46).bytes(PAGE_BYTES * count);
    let dirs = (0..job.clients).map(|client| job.dir.join(format!("durable-files-{}-{client}", job.clients)));
    let paths: Vec<_> = dirs.map(|dir| names(&dir, 'f', count)).collect();
    job.run(|number, client| {
        let mut all = paths[number].iter().zip(bytes.chunks(PAGE_BYTES));
        all.try_for_each(|(path, bytes)| {
            client.timed(|| {
                let mut file = File::create_new(path)?;
                file.write_all(bytes)?;
                file.sync_all()
            })
        })
    })
}

/// Where file `number` of very many is: not too many in one directory.
pub fn grouped(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("group-{}", number / GROUP)).join(format!("f{number}"))
}

/// Makes it.
pub fn create_grouped(dir: &Path, number: usize, bytes: &[u8]) -> io::Result<()> {
    let path = grouped(dir, number);
    if number.is_multiple_of(GROUP) {
        fs::create_dir_all(path.parent().expect("it lies in its group"))?;
    }
    File::create_new(path)?.write_all(bytes)
}
