//! Which bucket, where, and as whom; checked before anything is asked of a server.

use crate::backend::ObjectError;
use std::path::PathBuf;

/// Where a store's objects are and how they are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    /// The bucket's name. It must exist.
    pub bucket: String,
    /// What every object's name begins with; may be empty. Slashes around it do not count.
    pub prefix: String,
    /// `http://HOST[:PORT]` or `https://...` of a server; else `AWS_ENDPOINT_URL_S3`,
    /// `AWS_ENDPOINT_URL`, the profile's `endpoint_url`, or Amazon's for the region.
    pub endpoint: Option<String>,
    /// Else `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, or `us-east-1` if there is an endpoint.
    pub region: Option<String>,
    /// Takes keys and settings from this profile of `~/.aws` and from nowhere else. Without it:
    /// environment, the default profile (`AWS_PROFILE`), web identity, container, machine.
    pub profile: Option<String>,
    /// `HOST/BUCKET/KEY` instead of `BUCKET.HOST/KEY`. Default: if there is an endpoint.
    pub path_style: Option<bool>,
    /// Trust the certificates in this PEM file, and no others; else in the file `AWS_CA_BUNDLE`,
    /// else the system's.
    pub ca_file: Option<PathBuf>,
    /// How many requests are under way at once; creates come on top, as many.
    pub concurrency: usize,
}

/// As much as one Ceph daemon on one disk needs to be busy, and Amazon's 85-90 MB/s a connection
/// add up to more than most links.
const CONCURRENCY: usize = 16;
/// Keys have at most 1,024 bytes; the rest is for the names below the prefix.
const PREFIX_BYTES_MAX: usize = 900;

impl Default for S3Options {
    fn default() -> S3Options {
        S3Options {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            profile: None,
            path_style: None,
            ca_file: None,
            concurrency: CONCURRENCY,
        }
    }
}

/// A bucket and what keys in it begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub bucket: String,
    /// Empty, or ends with a slash.
    pub prefix: String,
    /// `s3://bucket/prefix`.
    pub name: String,
}

impl Place {
    pub fn parse(options: &S3Options) -> Result<Place, ObjectError> {
        let bucket = options.bucket.as_str();
        if bucket.is_empty() {
            return refuse("no bucket is named: write s3://BUCKET/PREFIX".into());
        }
        // Amazon's rule today is narrower; older buckets and other servers have all of these.
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if bucket.len() > 255 || !bucket.bytes().all(is_allowed) || !bucket.as_bytes()[0].is_ascii_alphanumeric() {
            return refuse(format!("'{bucket}' cannot be a bucket's name: letters, digits, '.', '-' and '_' can"));
        }
        let prefix = options.prefix.trim_matches('/');
        // Proxies on the way may "clean" such paths, and two names would be one object.
        let is_odd = |part: &str| matches!(part, "" | "." | "..") || part.contains(char::is_control);
        if !prefix.is_empty() && prefix.split('/').any(is_odd) {
            return refuse(format!("the prefix '{}' has an empty, '.' or '..' part", prefix.escape_debug()));
        }
        if prefix.len() > PREFIX_BYTES_MAX {
            return refuse(format!("the prefix is longer than {PREFIX_BYTES_MAX} bytes"));
        }
        let slash = if prefix.is_empty() { "" } else { "/" };
        Ok(Place {
            bucket: bucket.into(),
            prefix: format!("{prefix}{slash}"),
            name: format!("s3://{bucket}{slash}{prefix}"),
        })
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The name of a key below the prefix.
    pub fn name_of<'key>(&self, key: &'key str) -> Option<&'key str> {
        key.strip_prefix(self.prefix.as_str())
    }
}

/// A server that is not Amazon's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Without a slash at its end.
    pub url: String,
    pub is_tls: bool,
    pub port: u16,
}

impl Endpoint {
    pub fn parse(url: &str) -> Result<Endpoint, ObjectError> {
        let bad = |why: &str| refuse(format!("the endpoint '{url}' {why}: write http://HOST:PORT or https://HOST"));
        let (is_tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return bad("does not begin with http:// or https://"),
        };
        let authority = rest.split('/').next().unwrap_or("");
        if authority.is_empty() || rest.contains(|c: char| c.is_whitespace() || matches!(c, '@' | '?' | '#')) {
            return bad("names no host, or more than that");
        }
        // The colons inside the brackets of an IPv6 address do not begin a port.
        let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let port = match authority[after_host..].rsplit_once(':') {
            None => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            Some((_, port)) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return bad("has a port that is none"),
            },
        };
        Ok(Endpoint { url: url.trim_end_matches('/').into(), is_tls, port })
    }
}

pub(super) fn refuse<T>(text: String) -> Result<T, ObjectError> {
    Err(ObjectError::Refused(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bucket: &str, prefix: &str) -> Result<Place, ObjectError> {
        Place::parse(&S3Options { bucket: bucket.into(), prefix: prefix.into(), ..S3Options::default() })
    }

    #[test]
    fn names_are_keys_below_the_prefix() {
        let at_top = place("bucket", "").unwrap();
        assert_eq!((at_top.key("e1/c1").as_str(), at_top.name.as_str()), ("e1/c1", "s3://bucket"));
        assert_eq!(at_top.name_of("e1/c1"), Some("e1/c1"));
        for prefix in ["a/b", "a/b/", "/a/b"] {
            let below = place("bucket", prefix).unwrap();
            assert_eq!((below.key("e1/c1").as_str(), below.name.as_str()), ("a/b/e1/c1", "s3://bucket/a/b"));
            assert_eq!(below.name_of("a/b/e1/c1"), Some("e1/c1"));
            assert_eq!(below.name_of("a/bc"), None);
        }
    }

    #[test]
    fn what_cannot_be_a_place_is_refused() {
        for (bucket, prefix) in [("", ""), ("a/b", ""), ("ü", ""), (".a", ""), ("a b", "")] {
            assert!(matches!(place(bucket, prefix), Err(ObjectError::Refused(_))), "{bucket}");
        }
        for prefix in ["a//b", "a/../b", "./a", "a\nb", &"a".repeat(901)] {
            assert!(matches!(place("bucket", prefix), Err(ObjectError::Refused(_))), "{prefix}");
        }
    }

    #[test]
    fn endpoints_are_told_apart() {
        let parts = |url| Endpoint::parse(url).map(|endpoint| (endpoint.is_tls, endpoint.port));
        assert_eq!(parts("http://127.0.0.1:7480"), Ok((false, 7480)));
        assert_eq!(parts("http://s3.example/"), Ok((false, 80)));
        assert_eq!(parts("https://s3.example/base"), Ok((true, 443)));
        assert_eq!(parts("https://[::1]"), Ok((true, 443)));
        assert_eq!(parts("https://[::1]:9000"), Ok((true, 9000)));
        assert_eq!(Endpoint::parse("http://s3.example/").unwrap().url, "http://s3.example");
        for url in ["", "s3.example", "ftp://x", "http://", "http://a:x", "http://a:0", "http://k:s@a", "http://a b"] {
            assert!(matches!(parts(url), Err(ObjectError::Refused(_))), "{url}");
        }
    }
}
