//! LIST answers as they were some time ago.

use crate::past::Past;
use crate::request::{Asked, decode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use std::time::Duration;

const URL_SAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The answer without what was created within `hides`, and with what was deleted within `shows`.
/// What would be on a later page is not shown, and the page stays as long as it may be.
pub(crate) fn as_it_was(answer: &str, asked: &Asked, past: &Past, hides: Duration, shows: Duration) -> String {
    let is_encoded = asked.parameter("encoding-type") == Some("url");
    let (head, entries, tail) = split(answer);
    // By name, in the bytes' order, as S3 lists.
    let mut listed: BTreeMap<String, String> = BTreeMap::new();
    for entry in entries {
        let key = unescape(between(entry, "<Key>", "</Key>").unwrap_or(""));
        let name = if is_encoded { decode(&key) } else { key };
        listed.insert(name, entry.to_owned());
    }
    let last_listed = listed.last_key_value().map(|(name, _)| name.clone());
    let is_last_page = !head.contains("<IsTruncated>true") && !tail.contains("<IsTruncated>true");
    let is_first_page = asked.parameter("continuation-token").is_none();
    let after = asked.parameter("start-after").or(asked.parameter("marker")).unwrap_or("");
    let delimiter = asked.parameter("delimiter").filter(|delimiter| !delimiter.is_empty());
    for (name, object) in past.deleted_within(&asked.name, shows) {
        let fits = name.as_str() > after
            && (is_last_page || last_listed.as_ref().is_some_and(|last| name < *last))
            && delimiter.is_none_or(|delimiter| !name[asked.name.len()..].contains(delimiter));
        if !is_first_page || !fits {
            continue;
        }
        let key = if is_encoded { utf8_percent_encode(&name, URL_SAFE).to_string() } else { name.clone() };
        let (key, etag) = (escape(&key), escape(object.etag.to_str().unwrap_or("")));
        let length = object.length;
        let entry = format!(
            "<Contents><Key>{key}</Key><LastModified>2012-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>\
             <Size>{length}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        );
        listed.entry(name).or_insert(entry);
    }
    listed.retain(|name, _| !past.is_created_within(name, hides));
    let max = asked.parameter("max-keys").and_then(|max| max.parse().ok()).unwrap_or(1000);
    let entries: Vec<String> = listed.into_values().take(max).collect();
    let count = format!("<KeyCount>{}</KeyCount>", entries.len());
    format!("{}{}{}", with_count(head, &count), entries.concat(), with_count(tail, &count))
}

/// What is before the entries, the entries, and what is after them.
fn split(answer: &str) -> (&str, Vec<&str>, &str) {
    const START: &str = "<Contents>";
    const END: &str = "</Contents>";
    let Some(first) = answer.find(START) else {
        let at = answer.find("<CommonPrefixes>").or(answer.rfind("</ListBucketResult>")).unwrap_or(answer.len());
        return (&answer[..at], Vec::new(), &answer[at..]);
    };
    let mut rest = &answer[first..];
    let mut entries = Vec::new();
    while rest.starts_with(START)
        && let Some(end) = rest.find(END)
    {
        let (entry, after) = rest.split_at(end + END.len());
        entries.push(entry);
        rest = after;
    }
    (&answer[..first], entries, rest)
}

fn with_count(part: &str, count: &str) -> String {
    match between(part, "<KeyCount>", "</KeyCount>") {
        Some(old) => part.replace(&format!("<KeyCount>{old}</KeyCount>"), count),
        None => part.to_owned(),
    }
}

/// The names that a DELETE of many objects is about.
pub(crate) fn names_to_delete(body: &str) -> Vec<String> {
    let keys = body.split("<Key>").skip(1);
    keys.filter_map(|rest| rest.split_once("</Key>")).map(|(key, _)| unescape(key)).collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let from = text.find(start)? + start.len();
    let length = text[from..].find(end)?;
    Some(&text[from..from + length])
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (entity, after) = after.split_once(';').unwrap_or((after, ""));
        let number = entity.strip_prefix('#').map(|number| match number.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        });
        match entity {
            "amp" => out.push('&'),
            "lt" => out.push('<'),
            "gt" => out.push('>'),
            "quot" => out.push('"'),
            "apos" => out.push('\''),
            _ => out.extend(number.and_then(|number| char::from_u32(number.ok()?))),
        }
        rest = after;
    }
    out + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::past::Object;
    use hyper::Request;
    use hyper::header::HeaderValue;

    const LONG: Duration = Duration::from_secs(3600);

    fn object() -> Object {
        let text = HeaderValue::from_static("\"e\"");
        Object { etag: text.clone(), modified: text, headers: Vec::new(), length: 3, body: None }
    }

    fn answer(truncated: bool, names: &[&str]) -> String {
        let entries: Vec<String> = names
            .iter()
            .map(|name| format!("<Contents><Key>{}</Key><Size>1</Size></Contents>", escape(name)))
            .collect();
        format!(
            "<?xml?><ListBucketResult><KeyCount>{}</KeyCount>{}<IsTruncated>{truncated}</IsTruncated></ListBucketResult>",
            names.len(),
            entries.concat()
        )
    }

    fn list(past: &Past, query: &str, answer: &str, hides: Duration, shows: Duration) -> Vec<String> {
        let request = Request::builder().uri(format!("/b?{query}")).body(()).unwrap();
        let asked = Asked::read(&request.into_parts().0).unwrap();
        let edited = as_it_was(answer, &asked, past, hides, shows);
        let (_, entries, _) = split(&edited);
        assert!(edited.contains(&format!("<KeyCount>{}</KeyCount>", entries.len())), "{edited}");
        assert!(edited.ends_with("</ListBucketResult>"), "{edited}");
        entries.iter().map(|entry| unescape(between(entry, "<Key>", "</Key>").unwrap())).collect()
    }

    #[test]
    fn new_objects_are_hidden_and_deleted_ones_are_shown() {
        let mut past = Past::new(0);
        for name in ["p/new", "p/a&<b", "p/gone", "p/x/gone", "q/gone"] {
            past.written(name, object());
        }
        for name in ["p/gone", "p/x/gone", "q/gone"] {
            past.deleted(name);
        }
        let now = answer(false, &["p/a&<b", "p/new", "p/old"]);
        let zero = Duration::ZERO;
        assert_eq!(list(&past, "prefix=p/", &now, zero, zero), ["p/a&<b", "p/new", "p/old"]);
        assert_eq!(list(&past, "prefix=p/", &now, LONG, zero), ["p/old"]);
        assert_eq!(list(&past, "prefix=p/", &now, LONG, LONG), ["p/gone", "p/old", "p/x/gone"]);
        assert_eq!(list(&past, "prefix=p/&delimiter=/", &now, LONG, LONG), ["p/gone", "p/old"]);
        assert_eq!(list(&past, "prefix=p/&max-keys=2", &now, zero, LONG), ["p/a&<b", "p/gone"]);
        assert_eq!(list(&past, "prefix=p/&start-after=p/o", &now, LONG, LONG), ["p/old", "p/x/gone"]);
        assert_eq!(list(&past, "prefix=p/&continuation-token=t", &now, LONG, LONG), ["p/old"]);
        assert_eq!(list(&past, "prefix=p/", &answer(true, &["p/i"]), zero, LONG), ["p/gone", "p/i"]);
        assert_eq!(list(&past, "prefix=p/", &answer(false, &[]), zero, LONG), ["p/gone", "p/x/gone"]);
        assert_eq!(list(&past, "prefix=p%2F&encoding-type=url", &answer(false, &["p/a%26%3Cb"]), LONG, LONG).len(), 2);
    }

    #[test]
    fn names_of_a_delete_are_read() {
        let body = "<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c&#x2f;&#100;</Key></Object></Delete>";
        assert_eq!(names_to_delete(body), ["a&b", "c/d"]);
    }
}
