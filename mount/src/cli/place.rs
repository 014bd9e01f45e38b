//! STORE and DIR as they are given: what they name, in a form that means the same everywhere.

use crate::cli::failure::Failure;
use crate::cli::options::Unknown;
use crate::cli::store_options::refuse_for_file;
use crate::life::mountinfo;
use crate::life::place::{Bucket, Place, bucket_name};
use crate::life::plan::StoreOptions;
use crate::life::unmount::Target;
use kivafs::backend::S3Options;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A bucket's name has at least 3 bytes, and never had more than these.
const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 3..=255;

/// S3 takes names of 1024 bytes; the rest is for what we put behind the prefix.
const PREFIX_BYTES_MAX: usize = 900;

/// STORE, which is reached as the options say.
pub fn store(given: &Path, options: &StoreOptions, unknown: Unknown) -> Result<Place, Failure> {
    match bucket_of(given)? {
        Some((bucket, prefix)) => {
            let how = options.bucket.clone();
            let s3 = S3Options {
                bucket,
                prefix,
                endpoint: how.endpoint,
                region: how.region,
                profile: how.profile,
                path_style: how.path_style,
                ca_file: how.ca_file,
                concurrency: how.requests_max,
            };
            Ok(Place::Bucket(Bucket::new(s3, options.timeout)))
        }
        None => {
            refuse_for_file(options, unknown).map_err(Failure::Usage)?;
            Ok(Place::File(file(given)?))
        }
    }
}

/// What to unmount: a DIR, or a STORE.
pub fn target(given: &Path) -> Result<Target, Failure> {
    Ok(match bucket_of(given)? {
        Some((bucket, prefix)) => Target::Bucket(bucket_name(&bucket, &prefix).into()),
        None => Target::Path(given.into()),
    })
}

/// Links are followed, so that one store has one name for everybody; a store that is yet to be
/// made has the name that it will have.
fn file(given: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", given.display()));
    match given.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(given).map_err(failed)?;
            match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                _ => Ok(absolute),
            }
        }
        done => done.map_err(failed),
    }
}

/// DIR, as the list of mounts has it. One that can't be looked at is told of when it is used.
pub fn dir(given: &Path) -> Result<PathBuf, Failure> {
    mountinfo::as_listed(given)
        .or_else(|_| std::path::absolute(given))
        .map_err(|error| Failure::Failed(format!("{}: {error}", given.display())))
}

/// Bucket and prefix of what looks like a URL.
fn bucket_of(given: &Path) -> Result<Option<(String, String)>, Failure> {
    // Control characters would make two lines of one.
    let shown = || given.to_string_lossy().escape_debug().to_string();
    let bytes = given.as_os_str().as_bytes();
    let Some(scheme) = bytes.windows(3).position(|part| part == b"://").map(|end| &bytes[..end]) else {
        return Ok(None);
    };
    // A path has other things before its slashes.
    if !scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')) {
        return Ok(None);
    }
    if scheme != b"s3" {
        let scheme = String::from_utf8_lossy(scheme);
        return Err(Failure::Usage(format!(
            "{}: there are no stores in {scheme}: give the path of a local file, or s3://BUCKET/PREFIX",
            shown()
        )));
    }
    let rest = std::str::from_utf8(&bytes[b"s3://".len()..]).map_err(|_| "it is not UTF-8".to_string());
    rest.and_then(bucket_and_prefix)
        .map(Some)
        .map_err(|why| Failure::Usage(format!("{}: {why}: write s3://BUCKET or s3://BUCKET/PREFIX", shown())))
}

/// Takes `BUCKET/PREFIX` apart. A prefix loses the slash at its end: with and without, it is the
/// same store, which must have one name for everybody.
fn bucket_and_prefix(text: &str) -> Result<(String, String), String> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    if bucket.is_empty() {
        return Err("a bucket is missing".into());
    }
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if let Some(odd) = bucket.chars().find(|c| odd(*c)) {
        return Err(format!("no bucket's name has the character {odd:?}"));
    }
    if !BUCKET_BYTES.contains(&bucket.len()) || !bucket.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("'{bucket}' is no bucket's name"));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.chars().any(char::is_control) {
        return Err("the prefix has control characters".into());
    }
    // Programs on the way take these out of URLs, and then sign and ask for different names.
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("the prefix has an empty part, or '.' or '..'".into());
    }
    if prefix.len() > PREFIX_BYTES_MAX {
        return Err(format!("the prefix has more than {PREFIX_BYTES_MAX} bytes"));
    }
    Ok((bucket.into(), prefix.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn taken(text: &str) -> (String, String) {
        bucket_of(Path::new(text)).unwrap().unwrap()
    }

    #[test]
    fn urls_are_taken_apart() {
        let pair = |bucket: &str, prefix: &str| (bucket.to_string(), prefix.to_string());
        assert_eq!(taken("s3://bucket"), pair("bucket", ""));
        assert_eq!(taken("s3://bucket/"), pair("bucket", ""));
        assert_eq!(taken("s3://bucket/prefix"), pair("bucket", "prefix"));
        assert_eq!(taken("s3://my.bucket-1/a/b c/d/"), pair("my.bucket-1", "a/b c/d"));
        assert_eq!(taken("s3://Old_Bucket/ä"), pair("Old_Bucket", "ä"));
        assert_eq!(taken(&format!("s3://bucket/{}", "p".repeat(900))).1.len(), 900);
    }

    #[test]
    fn a_bad_url_is_one_line_that_says_why() {
        for (text, why) in [
            ("s3://", "a bucket is missing"),
            ("s3:///prefix", "a bucket is missing"),
            ("s3://buck et/prefix", "' '"),
            ("s3://bücket/prefix", "'ü'"),
            ("s3://bucket:80/prefix", "':'"),
            ("s3://user@bucket", "'@'"),
            ("s3://buck\net/prefix", "'\\n'"),
            ("s3://ab", "'ab'"),
            ("s3://-bucket", "'-bucket'"),
            ("s3://bucket/pre\nfix", "control"),
            ("s3://bucket/pre\u{7f}fix", "control"),
            ("s3://bucket//prefix", "empty part"),
            ("s3://bucket/a//b", "empty part"),
            ("s3://bucket/a/../b", "'..'"),
            ("s3://bucket/.", "'.'"),
            ("http://bucket/prefix", "no stores in http"),
            ("S3://bucket/prefix", "no stores in S3"),
        ] {
            let Err(Failure::Usage(line)) = bucket_of(Path::new(text)) else { panic!("{text}") };
            assert!(line.contains(why) && line.contains("s3://BUCKET") && !line.contains(char::is_control), "{line}");
        }
        assert!(bucket_of(Path::new(OsStr::from_bytes(b"s3://bucket/\xff"))).is_err());
        assert!(bucket_of(Path::new(&format!("s3://bucket/{}", "p".repeat(901)))).is_err());
    }

    #[test]
    fn a_path_is_a_path() {
        for path in ["store", "/srv/store", "./s3://bucket", "/srv/a://b", "s3:/bucket", "s3", ""] {
            assert!(bucket_of(Path::new(path)).unwrap().is_none(), "{path}");
        }
    }
}
