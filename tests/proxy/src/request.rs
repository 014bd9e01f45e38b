//! What a request asks for, as far as faults and records need to know.

use hyper::Method;
use hyper::header::IF_NONE_MATCH;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::hash::Hasher;
use xxhash_rust::xxh3::Xxh3;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// PUT of an object.
    Put,
    /// PUT of an object that must not exist (`If-None-Match: *`).
    Create,
    Get,
    Head,
    List,
    Delete,
    /// DELETE of many objects: a POST that names them.
    DeleteMany,
    /// Everything else: buckets, and what objects have besides bodies.
    Other,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    /// The object's name, below the bucket. LIST: the prefix.
    pub(crate) name: String,
    /// The Range header.
    pub(crate) range: Option<String>,
    /// DELETE of many: their names, once the body has been read.
    pub(crate) names: Vec<String>,
    /// LIST: its parameters.
    pub(crate) query: Vec<(String, String)>,
}

impl Asked {
    /// Err: why the proxy cannot keep its promises with such a request.
    pub(crate) fn read(head: &Parts) -> Result<Asked, &'static str> {
        let path = head.uri.path().trim_start_matches('/');
        let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
        let query = read_query(head.uri.query().unwrap_or(""));
        let has = |parameter: &str| query.iter().any(|(key, _)| key == parameter);
        let is_plain = query.iter().all(|(key, _)| key == "x-id" || key.starts_with("response-"));
        let kind = match head.method {
            _ if bucket.is_empty() => Kind::Other,
            Method::GET if name.is_empty() && is_list(&query) => Kind::List,
            Method::POST if name.is_empty() && has("delete") => Kind::DeleteMany,
            _ if name.is_empty() => Kind::Other,
            Method::PUT if has("partNumber") => return Err("uploads in parts"),
            Method::PUT if head.headers.contains_key("x-amz-copy-source") => return Err("copies"),
            Method::PUT if is_plain && is_chunked(head) => return Err("bodies in signed chunks"),
            Method::PUT if is_plain && head.headers.contains_key(IF_NONE_MATCH) => Kind::Create,
            Method::PUT if is_plain => Kind::Put,
            Method::GET if is_plain => Kind::Get,
            Method::HEAD if is_plain => Kind::Head,
            Method::DELETE if is_plain => Kind::Delete,
            _ => Kind::Other,
        };
        let value = |parameter: &str| query.iter().find(|(key, _)| key == parameter).map(|(_, value)| value.clone());
        let name = match kind {
            Kind::List => value("prefix").unwrap_or_default(),
            _ => decode(name),
        };
        let range = head.headers.get("range").and_then(|range| range.to_str().ok()).map(str::to_owned);
        Ok(Asked { kind, name, range, names: Vec::new(), query })
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All the names that the request is about.
    pub(crate) fn all_names(&self) -> &[String] {
        if self.kind == Kind::DeleteMany { &self.names } else { std::slice::from_ref(&self.name) }
    }

    /// What decisions depend on: not the part of names before their last two components, which is
    /// another one in each run.
    pub(crate) fn topic(&self) -> u64 {
        let mut topic = Xxh3::new();
        topic.write_u8(self.kind as u8);
        for name in self.all_names() {
            let mut components = name.rsplit('/');
            for component in [components.next(), components.next()].into_iter().flatten() {
                topic.write(component.as_bytes());
                topic.write_u8(b'/');
            }
            topic.write_u8(0);
        }
        topic.write(self.range.as_deref().unwrap_or("").as_bytes());
        topic.finish()
    }
}

fn is_list(query: &[(String, String)]) -> bool {
    const PARAMETERS: [&str; 8] = [
        "prefix",
        "delimiter",
        "max-keys",
        "encoding-type",
        "marker",
        "list-type",
        "continuation-token",
        "start-after",
    ];
    query.iter().all(|(key, _)| PARAMETERS.contains(&key.as_str()) || matches!(key.as_str(), "fetch-owner" | "x-id"))
}

fn is_chunked(head: &Parts) -> bool {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    header("content-encoding").contains("aws-chunked") || header("x-amz-content-sha256").starts_with("STREAMING-")
}

fn read_query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

pub(crate) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn read(method: &str, uri: &str, header: (&str, &str)) -> Result<Asked, &'static str> {
        let request = Request::builder().method(method).uri(uri).header(header.0, header.1).body(()).unwrap();
        Asked::read(&request.into_parts().0)
    }

    fn kind(method: &str, uri: &str) -> Kind {
        read(method, uri, ("x", "y")).unwrap().kind
    }

    #[test]
    fn kinds_and_names_are_told_apart() {
        assert_eq!(kind("PUT", "/b/e1/c1?x-id=PutObject"), Kind::Put);
        assert_eq!(read("PUT", "/b/e1/c%201", ("if-none-match", "*")).unwrap().kind, Kind::Create);
        assert_eq!(read("PUT", "/b/e1/c%201", ("if-none-match", "*")).unwrap().name, "e1/c 1");
        assert_eq!(kind("PUT", "/b"), Kind::Other);
        assert_eq!(kind("PUT", "/b/"), Kind::Other);
        assert_eq!(kind("PUT", "/b/x?acl"), Kind::Other);
        assert_eq!(kind("GET", "/"), Kind::Other);
        assert_eq!(kind("GET", "/b/x?x-id=GetObject"), Kind::Get);
        assert_eq!(kind("GET", "/b/x?tagging"), Kind::Other);
        assert_eq!(kind("GET", "/b?location"), Kind::Other);
        assert_eq!(kind("GET", "/b/"), Kind::List);
        let list = read("GET", "/b?list-type=2&prefix=p%2Fe1%2F&max-keys=2", ("x", "y")).unwrap();
        assert_eq!((list.kind, list.name.as_str(), list.parameter("max-keys")), (Kind::List, "p/e1/", Some("2")));
        assert_eq!(kind("HEAD", "/b/x"), Kind::Head);
        assert_eq!(kind("HEAD", "/b"), Kind::Other);
        assert_eq!(kind("DELETE", "/b/x"), Kind::Delete);
        assert_eq!(kind("POST", "/b?delete"), Kind::DeleteMany);
        assert!(read("PUT", "/b/x?partNumber=1&uploadId=2", ("x", "y")).is_err());
        assert!(read("PUT", "/b/x", ("content-encoding", "aws-chunked")).is_err());
    }

    #[test]
    fn the_topic_is_the_same_under_another_prefix() {
        let topic = |method: &str, uri: &str, range: &str| read(method, uri, ("range", range)).unwrap().topic();
        assert_eq!(topic("GET", "/b/run-1/e1/c5", "bytes=0-1"), topic("GET", "/b/run-2/e1/c5", "bytes=0-1"));
        assert_ne!(topic("GET", "/b/run-1/e1/c5", "bytes=0-1"), topic("GET", "/b/run-1/e2/c5", "bytes=0-1"));
        assert_ne!(topic("GET", "/b/run-1/e1/c5", "bytes=0-1"), topic("GET", "/b/run-1/e1/c5", "bytes=1-1"));
        assert_ne!(topic("GET", "/b/run-1/e1/c5", "bytes=0-1"), topic("HEAD", "/b/run-1/e1/c5", "bytes=0-1"));
        assert_ne!(topic("GET", "/b/e11/c5", ""), topic("GET", "/b/e1/1c5", ""));
    }
}
