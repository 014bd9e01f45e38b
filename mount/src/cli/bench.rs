//! bench.

use crate::bench;
use crate::cli::failure::Failure;
use crate::cli::options::{Unknown, parse_options};
use crate::cli::store_options::parse_store_options;
use crate::cli::words::{BenchCeilingWords, BenchGrowthWords, BenchKvWords, BenchMountWords, BenchS3Words};
use crate::cli::{given, place};
use crate::life::plan::MountOptions;
use std::ffi::OsString;
use std::time::Duration;

pub fn s3(words: &BenchS3Words) -> Result<(), Failure> {
    let given = given::store(&words.store)?;
    let Some(s3) = given.place.s3() else {
        return Err(Failure::Usage("bench s3: give a place in a bucket: s3://BUCKET/PREFIX".into()));
    };
    let plan = bench::Plan {
        s3: s3.clone(),
        options: given::texts(&words.store.options)?.join(","),
        scratch: words.scratch.clone().unwrap_or_else(std::env::temp_dir),
        big_bytes: words.big,
        rounds: words.rounds.into(),
        files: words.files,
        idle: Duration::from_secs(words.idle),
    };
    bench::s3(plan, &mut std::io::stdout().lock()).map_err(Failure::Failed)
}

pub fn kv(words: &BenchKvWords) -> Result<(), Failure> {
    let options = given::texts(&words.options)?;
    let plan = bench::KvPlan {
        dir: words.dir.clone().unwrap_or_else(std::env::temp_dir),
        pairs: words.pairs as usize,
        seconds: words.seconds.into(),
        rounds: words.rounds.into(),
        options: options.join(","),
        store_options: parse_store_options(options).map_err(Failure::Usage)?,
    };
    bench::kv(&plan, &mut std::io::stdout().lock()).map_err(Failure::Failed)
}

pub fn mount(words: &BenchMountWords) -> Result<(), Failure> {
    const MIB: u64 = 1 << 20;
    if words.big < MIB {
        return Err(Failure::Usage("bench mount: --big: a large file has 1M at least".into()));
    }
    let (options, taken) = mount_options(&words.options)?;
    let plan = bench::MountPlan {
        dir: words.dir.clone().unwrap_or_else(std::env::temp_dir),
        sizes: bench::Sizes { files: words.files as usize, big_bytes: words.big / MIB * MIB },
        rows: words.rows.clone(),
        rounds: words.rounds.into(),
        options,
        threads: taken.threads,
        svg: words.svg.clone(),
    };
    bench::mount(&plan, &mut std::io::stdout().lock()).map_err(Failure::Failed)
}

pub fn growth(words: &BenchGrowthWords) -> Result<(), Failure> {
    let (options, taken) = mount_options(&words.options)?;
    let plan = bench::GrowthPlan {
        dir: words.dir.clone().unwrap_or_else(std::env::temp_dir),
        files: words.files as usize,
        first: words.first as usize,
        by_library: words.by_library,
        options,
        store_options: taken.store,
        svg: words.svg.clone(),
    };
    bench::growth(&plan, &mut std::io::stdout().lock()).map_err(Failure::Failed)
}

/// Options for a mount, as they are handed on, and as they are understood. What is to be written cannot be
/// read-only.
fn mount_options(lists: &[OsString]) -> Result<(String, MountOptions), Failure> {
    let texts = given::texts(lists)?;
    let joined = texts.join(",");
    let taken = parse_options(texts, Unknown::Refuse).map_err(Failure::Usage)?;
    match taken.read_only || taken.remount {
        true => Err(Failure::Usage("option 'ro' or 'remount': what is measured writes to a mount of its own".into())),
        false => Ok((joined, taken)),
    }
}

pub fn ceiling(words: &BenchCeilingWords) -> Result<(), Failure> {
    Ok(bench::serve_ceiling(&place::dir(&words.dir)?, words.threads.into())?)
}
