//! bench.

use crate::bench;
use crate::cli::failure::Failure;
use crate::cli::store_options::parse_store_options;
use crate::cli::words::{BenchCeilingWords, BenchKvWords, BenchS3Words};
use crate::cli::{given, place};
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

pub fn ceiling(words: &BenchCeilingWords) -> Result<(), Failure> {
    Ok(bench::serve_ceiling(&place::dir(&words.dir)?, words.threads.into())?)
}
