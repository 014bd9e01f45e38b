//! Those words after `-o` that every command takes: how a store is reached and opened.

use crate::cli::options::Unknown;
use crate::cli::size::parse_size;
use crate::life::plan::StoreOptions;
use kivafs::store::Compression;
use std::path::PathBuf;
use std::time::Duration;

/// For `kivafs COMMAND --help`.
pub const HELP: &str = "\
Options after -o, separated by commas:
  cache=SIZE             memory for cached pages [256M, or a 16th of the memory if that is less]
  compress=lz4|none      for new data [lz4]
  max_size=SIZE          most that the store may come to occupy; deleting always works [as it was made]
  timeout=SECONDS        how long a request may wait for storage [300]
And for stores in S3 (s3://BUCKET/PREFIX):
  endpoint=URL           the server, if it is not Amazon's: https://HOST or http://HOST:PORT
  region=NAME            the bucket's region
  profile=NAME           whose credentials, of those in ~/.aws
  path_style             the bucket stands in the URL's path [if there is an endpoint]
  virtual_style          the bucket stands in the host's name
  ca=FILE                certificates to trust, in PEM
  requests=NUMBER        most requests under way at once [16]
  disk_cache=DIR[:SIZE]  keep what was read there, too; at most SIZE [4G]
  unsafe_no_fencing      write though the server can't keep two writers apart: then you have to
What is not said comes from the usual places: AWS_* in the environment, ~/.aws, the machine's role.";

/// Ten years: the end of waiting is a time that there is.
const TIMEOUT_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

/// In an error that names what there is.
pub const VALID: &str = "cache=SIZE, compress=lz4|none, max_size=SIZE, timeout=SECONDS; for stores in S3 endpoint=URL, region=NAME, \
                         profile=NAME, path_style, virtual_style, ca=FILE, requests=NUMBER, disk_cache=DIR[:SIZE], \
                         unsafe_no_fencing";

/// A disk cache of no given size.
const DISK_CACHE_BYTES: u64 = 4 << 30;

/// Takes options apart, as [`parse_options`](crate::cli::options::parse_options) does.
pub fn parse_store_options<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<StoreOptions, String> {
    let mut options = StoreOptions::default();
    for word in words(lists) {
        if !take(&mut options, word)? {
            return Err(unknown(word, VALID));
        }
    }
    Ok(options)
}

/// The words of some lists.
pub fn words<'a>(lists: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    lists.into_iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty())
}

/// What to say of a word that nobody knows.
pub fn unknown(word: &str, valid: &str) -> String {
    format!("unknown option '{word}': the valid ones are {valid}")
}

/// Takes one word; false: it is none of these.
pub fn take(options: &mut StoreOptions, word: &str) -> Result<bool, String> {
    match word.split_once('=') {
        Some((name, value)) => take_value(options, name, value),
        None => Ok(take_flag(options, word)),
    }
}

fn take_flag(options: &mut StoreOptions, word: &str) -> bool {
    match word {
        "path_style" => options.bucket.path_style = Some(true),
        "virtual_style" => options.bucket.path_style = Some(false),
        "unsafe_no_fencing" => options.bucket.unsafe_no_fencing = true,
        _ => return false,
    }
    true
}

fn take_value(options: &mut StoreOptions, name: &str, value: &str) -> Result<bool, String> {
    let wrong = |why: &str| format!("option '{name}={value}': {why}");
    let size = |text: &str| parse_size(text).map_err(|why| wrong(&why));
    let absolute = |text: &str| match text {
        "" => Err(wrong("write a path")),
        text => std::path::absolute(text).map_err(|error| wrong(&error.to_string())),
    };
    let name_of = |what: &str| match value {
        "" => Err(wrong(&format!("write the name of {what}"))),
        value => Ok(Some(value.to_string())),
    };
    match name {
        "cache" => options.cache_bytes = Some(size(value)?),
        "compress" => {
            options.compression = match value {
                "lz4" => Compression::Lz4,
                "none" => Compression::None,
                _ => return Err(wrong("it is lz4 or none")),
            };
        }
        "max_size" => match size(value)? {
            0 => return Err(wrong("that leaves no room for anything")),
            bytes => options.size_max = Some(bytes),
        },
        "timeout" => options.timeout = Duration::from_secs(take_number(name, value)?.clamp(1, TIMEOUT_SECONDS_MAX)),
        "endpoint" => options.bucket.endpoint = Some(endpoint(value).map_err(wrong)?.to_string()),
        "region" => options.bucket.region = name_of("a region, like eu-central-1")?,
        "profile" => options.bucket.profile = name_of("a profile in ~/.aws")?,
        "ca" => options.bucket.ca_file = Some(absolute(value)?),
        "requests" => match take_number(name, value)? {
            requests @ 1..=256 => options.bucket.requests_max = requests as usize,
            _ => return Err(wrong("1 to 256 make sense")),
        },
        "disk_cache" => options.bucket.disk_cache = Some(disk_cache(value, size, absolute)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// The number that an option has.
pub fn take_number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("option '{name}={value}': '{value}' is not a number"))
}

/// A server's URL: a scheme and a host, perhaps a port.
fn endpoint(url: &str) -> Result<&str, &'static str> {
    let host = url.strip_prefix("https://").or(url.strip_prefix("http://")).unwrap_or_default();
    let host = host.trim_end_matches('/');
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#' | '/');
    match host.is_empty() || host.contains(odd) {
        true => Err("write the server's URL, like https://s3.example.org or http://127.0.0.1:7480"),
        false => Ok(url.trim_end_matches('/')),
    }
}

/// DIR, or DIR:SIZE.
fn disk_cache(
    value: &str,
    size: impl Fn(&str) -> Result<u64, String>,
    absolute: impl Fn(&str) -> Result<PathBuf, String>,
) -> Result<(PathBuf, u64), String> {
    match value.rsplit_once(':') {
        // A directory's name may have a colon, followed by what is no size.
        Some((dir, tail)) if tail.starts_with(|c: char| c.is_ascii_digit()) => Ok((absolute(dir)?, size(tail)?)),
        _ => Ok((absolute(value)?, DISK_CACHE_BYTES)),
    }
}

/// Whether a store's options are for a place of this kind; else what to say.
pub fn refuse_for_file(options: &StoreOptions, unknown: Unknown) -> Result<(), String> {
    match (options.bucket.first_given(), unknown) {
        (Some(name), Unknown::Refuse) => {
            Err(format!("option '{name}': only stores in S3 (s3://BUCKET/PREFIX) have that, not local files"))
        }
        _ => Ok(()),
    }
}
