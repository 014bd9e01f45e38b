//! `bench growth`: what stays as it is as a store grows, and what does not.

use crate::bench::figures::{Answer, MIB, millis, text};
use crate::bench::interrupt::Interrupt;
use crate::bench::mounted::{Mounted, durable, sync_dir};
use crate::bench::noise::Noise;
use crate::bench::plot::{self, Grown};
use crate::bench::process;
use crate::bench::scratch::{fresh_name, with_scratch};
use crate::bench::work::create_grouped;
use crate::keys::{Change, Keys};
use crate::life::place::Place;
use crate::life::plan::StoreOptions;
use crate::life::progress::Progress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a file.
const FILE_BYTES: usize = 100;
/// Files between looks at whether somebody wants an end; keys of a batch.
const BATCH: usize = 1000;
/// How often to look whether a process has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// What to run, and where.
pub struct GrowthPlan {
    /// A fresh directory is made in it.
    pub dir: PathBuf,
    /// Files in the end.
    pub files: usize,
    /// Files when it is looked at for the first time; then at ten times as many, and so on. The rates of
    /// the first so many and of the last so many are compared.
    pub first: usize,
    /// Make them by the library, as keys: many more a second than there are calls of a mount.
    pub by_library: bool,
    /// What stands behind `-o` of the mount.
    pub options: String,
    /// The same for the library.
    pub store_options: StoreOptions,
    /// Where to draw it, too.
    pub svg: Option<PathBuf>,
}

/// Runs it all; lines go to `out`.
pub fn growth(plan: &GrowthPlan, out: &mut dyn Write) -> Answer<()> {
    let interrupt = Interrupt::watch()?;
    with_scratch(&plan.dir, &fresh_name(), |dir| {
        let mut say = |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(text);
        say(format!(
            "growth     in {}: up to {} files of {FILE_BYTES} bytes, made {}",
            dir.display(),
            plan.files,
            if plan.by_library { "by the library, in one directory" } else { "by a mount, 1000 in a directory" }
        ))?;
        let store = dir.join("store");
        let place = Place::File(store.clone());
        place.create(&plan.store_options.for_creating(None)).map_err(text)?;
        let mounted = Mounted::new(place.to_string(), plan.options.clone(), dir.join("mount")).map_err(text)?;
        let growing = Growing { plan, store, place, mounted, interrupt };
        let mut grown: Vec<Grown> = Vec::new();
        for files in sizes(plan) {
            let so_far = grown.last().map_or(0, |before| before.files as usize);
            let (now, size) = growing.grow(so_far, files)?;
            let rate = |rates: Option<&(f64, f64)>| rates.map_or(0.0, |(_, rate)| *rate);
            let first = rate(grown.first().unwrap_or(&now).rates.first());
            let last = rate(now.rates.last());
            say(format!(
                "{files:<10} the last {} made at {:.2} k/s, the first at {:.2}: {:.2} of it; mounted {:.1} ms after kill -9; \
                 {:.1} MiB resident; {:.1} MiB of disk",
                plan.first.min(files),
                last / 1e3,
                first / 1e3,
                last / first,
                now.mount_millis,
                now.memory_mib,
                size as f64 / MIB
            ))?;
            grown.push(now);
        }
        if !plan.by_library {
            growing.mounted.umount().map_err(text)?;
        }
        match &plan.svg {
            Some(path) => plot::growth(path, &grown).map_err(|error| format!("{}: {error}", path.display())),
            None => Ok(()),
        }
    })
}

/// At how many files to look.
fn sizes(plan: &GrowthPlan) -> Vec<usize> {
    let tens = std::iter::successors(Some(plan.first), |files| files.checked_mul(10));
    tens.take_while(|files| *files < plan.files).chain([plan.files]).collect()
}

struct Growing<'a> {
    plan: &'a GrowthPlan,
    store: PathBuf,
    place: Place,
    mounted: Mounted,
    interrupt: Interrupt,
}

impl Growing<'_> {
    /// From so many files to so many; how it is then, and the bytes that the store has of its disk.
    fn grow(&self, from: usize, to: usize) -> Answer<(Grown, u64)> {
        let (rates, memory) = if self.plan.by_library { self.by_library(from, to)? } else { self.by_mount(from, to)? };
        // What was answered last is in the log only, as far as that goes.
        durable(&self.mounted.dir.join(format!("mark-{to}")), b"x").map_err(text)?;
        let size = std::fs::metadata(&self.store).map_err(text)?.blocks() * 512;
        self.kill()?;
        let start = Instant::now();
        self.mounted.mount(&[]).map_err(text)?;
        let mount_millis = millis(start.elapsed());
        let there = self.mounted.dir.join(format!("mark-{to}"));
        if std::fs::read(&there).map_err(|error| format!("{}: {error}", there.display()))? != b"x" {
            return Err("what was durable is not there after kill -9".into());
        }
        if self.plan.by_library {
            // The process has the store for a moment longer.
            let pid = self.mounted.pid(&self.place)?;
            self.mounted.umount().map_err(text)?;
            until_gone(pid);
        }
        Ok((Grown { files: to as f64, rates, mount_millis, memory_mib: memory as f64 / 1024.0 }, size))
    }

    /// Rates on the way, and KiB of memory at its end. It is mounted then.
    fn by_mount(&self, from: usize, to: usize) -> Answer<(Vec<(f64, f64)>, u64)> {
        if from == 0 {
            self.mounted.mount(&[]).map_err(text)?;
        }
        let pid = self.mounted.pid(&self.place)?;
        let dir = &self.mounted.dir;
        let rates = self.rates(from, to, |batch, noise| {
            batch.into_iter().try_for_each(|number| create_grouped(dir, number, &noise.bytes(FILE_BYTES))).map_err(text)
        })?;
        sync_dir(dir).map_err(text)?;
        Ok((rates, process::memory(pid)))
    }

    fn by_library(&self, from: usize, to: usize) -> Answer<(Vec<(f64, f64)>, u64)> {
        let options = self.plan.store_options.for_opening();
        let keys = Keys::open(&self.store, &options).map_err(text)?;
        let rates = self.rates(from, to, |batch, noise| {
            let change = |number| Change::set(format!("f{number:010}"), noise.bytes(FILE_BYTES));
            keys.apply(&batch.into_iter().map(change).collect::<Vec<_>>()).map(drop).map_err(text)
        })?;
        let memory = process::memory(std::process::id());
        keys.close().map_err(text)?;
        self.mounted.mount(&[]).map_err(text)?;
        Ok((rates, memory))
    }

    /// Makes files, and answers the rate of each `first` of them.
    fn rates(
        &self,
        from: usize,
        to: usize,
        mut make: impl FnMut(std::ops::Range<usize>, &mut Noise) -> Answer<()>,
    ) -> Answer<Vec<(f64, f64)>> {
        let mut progress = Progress::start();
        let mut noise = Noise::new(51 + from as u64);
        let mut rates = Vec::new();
        for begin in (from..to).step_by(self.plan.first) {
            let end = to.min(begin + self.plan.first);
            let start = Instant::now();
            for batch in (begin..end).step_by(BATCH) {
                self.interrupt.check()?;
                make(batch..end.min(batch + BATCH), &mut noise)?;
            }
            rates.push((end as f64, (end - begin) as f64 / start.elapsed().as_secs_f64()));
            progress.tick(&format!("{end} files"));
        }
        Ok(rates)
    }

    /// Ends who serves as a power cut would, as far as a process can; returns when it is gone.
    fn kill(&self) -> Answer<()> {
        let pid = self.mounted.pid(&self.place)?;
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).map_err(text)?;
        until_gone(pid);
        Ok(())
    }
}

fn until_gone(pid: u32) {
    while !process::is_gone(pid) {
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_at_at_each_power_of_ten_and_at_the_end() {
        let sizes = |first, files| {
            let (dir, options, store_options) = (PathBuf::new(), String::new(), StoreOptions::default());
            sizes(&GrowthPlan { dir, files, first, by_library: false, options, store_options, svg: None })
        };
        assert_eq!(sizes(100, 2500), [100, 1000, 2500]);
        assert_eq!(sizes(100, 1000), [100, 1000]);
        assert_eq!(sizes(100, 70), [70]);
    }
}
