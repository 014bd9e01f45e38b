//! Reads the sources and checks that imports never point up the layers, and that they are tidy.
//!
//! Comments and literals are blanked first, so that docs may speak of what code may not use.
//! Paths are followed through groups (`use crate::{a, b::{c}}`) and through `super`, also out of
//! inline modules.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The library's layers, from the bottom. Each may use those before it.
const LAYERS: [&str; 4] = ["backend", "log", "tree", "store"];

/// All that the tree may know of the log: what names and checks a stored page.
const POINTER_TYPES: [&str; 8] =
    ["Codec", "NUMBER_MAX", "POINTER_BYTES", "Pointer", "SEGMENT_BYTES_MAX", "SegmentNo", "Sequence", "checksum"];

/// What a part must not use, besides what the layers say, and why. A part is a folder or a file.
/// Its own tests may.
const FORBIDDEN: [(&str, &[&str], &str); 9] = [
    ("src/tree", &["std::fs", "std::thread", "backend"], "the tree does no I/O and knows no threads"),
    (
        "mount/src/fs",
        &["fuser", "facade", "kvlds", "keys", "life", "cli", "kivafs::log", "kivafs::backend"],
        "the file system is methods over a store: no FUSE types, no process, no segments",
    ),
    (
        "mount/src/keys",
        &["fuser", "facade", "kvlds", "life", "cli", "kivafs::log", "kivafs::backend"],
        "the keys are methods over the file system",
    ),
    (
        "mount/src/facade",
        &["kvlds", "life", "cli", "kivafs::log", "kivafs::backend"],
        "the facade converts, calls one method, and replies",
    ),
    (
        "mount/src/kvlds",
        &["fuser", "facade", "life", "cli", "kivafs::log", "kivafs::backend"],
        "the socket speaks the protocol and calls the file system",
    ),
    (
        "mount/src/meter",
        &["fuser", "facade", "kvlds", "keys", "fs", "life", "cli", "kivafs"],
        "the meter counts, whatever is counted",
    ),
    (
        "mount/src/top",
        &["fuser", "facade", "kvlds", "keys", "fs", "life", "cli", "kivafs"],
        "rates come from the metrics alone",
    ),
    (
        "mount/src/install",
        &["fuser", "facade", "fs", "kvlds", "keys", "life", "cli", "kivafs"],
        "putting files in place needs no store, and its texts are handed to it",
    ),
    ("mount/src/life", &["cli"], "the command line starts a mount, not the other way round"),
];

const LINES_MAX: usize = 900;
const NAMES_THAT_SAY_NOTHING: [&str; 8] = ["util", "utils", "common", "manager", "helper", "helpers", "misc", "shared"];

#[test]
fn imports_point_down_and_sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "mount/src", "tests", "mount/tests", "mount/examples", "examples", "benches"] {
        collect_sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 10, "found only {files:?}");
    let mut found = Vec::new();
    let sources: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(root).expect("below the root").to_str().expect("a name in UTF-8");
            (name.to_owned(), fs::read_to_string(file).expect("source file"))
        })
        .collect();
    let for_tests: HashSet<String> = sources.iter().flat_map(|(name, text)| modules_for_tests(name, text)).collect();
    for (name, text) in &sources {
        found.extend(violations(name, text, for_tests.contains(name)));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn collect_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("directory entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// What is wrong with the source file of that name (relative to the root), one line each.
/// `is_for_tests`: it is compiled for tests only.
fn violations(name: &str, text: &str, is_for_tests: bool) -> Vec<String> {
    let code = blank_comments_and_literals(text);
    let product = if is_for_tests || is_test_file(name) { String::new() } else { blank_tests(&code) };
    let mut found = Vec::new();
    check_layers(name, &code, &mut found);
    check_forbidden(name, &product, &mut found);
    check_tidiness(name, &code, &product, &mut found);
    found
}

fn check_layers(name: &str, code: &str, found: &mut Vec<String>) {
    let Some((own, rank)) = name.strip_prefix("src/").and_then(layer_of) else { return };
    for (line, path) in resolved_paths(name, code) {
        let Some((used, used_rank)) = path.strip_prefix("crate::").and_then(layer_of) else { continue };
        if used_rank > rank {
            found.push(format!("{name}:{line}: {own} uses {path}: {used} lies above it"));
        }
        let item = path.split("::").nth(2).unwrap_or("");
        if (own, used) == ("tree", "log") && !POINTER_TYPES.contains(&item) && !matches!(item, "pointer" | "self" | "")
        {
            found.push(format!("{name}:{line}: tree uses {path}: of the log it may know pointers only"));
        }
    }
}

/// The layer that a path (`log/ring.rs` or `log::Pointer`) lies in, and its rank.
fn layer_of(path: &str) -> Option<(&'static str, usize)> {
    let first = path.split(['/', ':', '.']).next()?;
    LAYERS.iter().enumerate().find(|(_, layer)| **layer == first).map(|(rank, layer)| (*layer, rank))
}

fn check_forbidden(name: &str, product: &str, found: &mut Vec<String>) {
    let of_part = |part: &str| name.strip_prefix(part).is_some_and(|rest| rest.starts_with('/') || rest == ".rs");
    for (part, forbidden, why) in FORBIDDEN.iter().filter(|(part, ..)| of_part(part)) {
        for (line, path) in resolved_paths(name, product) {
            let plain = path.strip_prefix("crate::").or(path.strip_prefix("kivafs_mount::")).unwrap_or(&path);
            let hit = |taboo: &&&str| {
                plain.strip_prefix(**taboo).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if let Some(taboo) = forbidden.iter().find(hit) {
                found.push(format!("{name}:{line}: {part} uses {taboo} ({path}): {why}"));
            }
        }
    }
}

fn check_tidiness(name: &str, code: &str, product: &str, found: &mut Vec<String>) {
    let everywhere = [("todo!", "finish it"), ("unimplemented!", "finish it"), ("#[ignore", "run it or remove it")];
    let in_product = [(".unwrap()", "return an error, or expect() with the reason why it cannot fail")];
    for (text, taboos) in [(code, &everywhere[..]), (product, &in_product[..])] {
        for (index, line) in text.lines().enumerate() {
            for (taboo, cure) in taboos.iter().filter(|(taboo, _)| line.contains(taboo)) {
                found.push(format!("{name}:{}: {taboo}: {cure}", index + 1));
            }
        }
    }
    let lines = code.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{name}:{LINES_MAX}: {lines} lines: a file has one job, and at most {LINES_MAX} lines"));
    }
    let parts = name.trim_end_matches(".rs").split('/');
    for part in parts.filter(|part| NAMES_THAT_SAY_NOTHING.contains(part)) {
        found.push(format!("{name}:1: '{part}' does not say what it does"));
    }
}

/// Whole programs for tests, which no declaration names.
fn is_test_file(name: &str) -> bool {
    name.split('/').any(|part| part == "tests" || part == "benches")
}

/// The files of the modules that a file declares for tests only (`#[cfg(test)] mod model;`).
fn modules_for_tests(name: &str, text: &str) -> Vec<String> {
    let code = blank_comments_and_literals(text);
    let folder = name.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/lib");
    let after_mark = code.split("#[cfg(test)]").skip(1);
    let declared = after_mark.filter_map(|rest| rest.trim_start().strip_prefix("mod ")?.split_once(';'));
    declared
        .filter(|(module, _)| !module.contains('{'))
        .map(|(module, _)| format!("{folder}/{}.rs", module.trim()))
        .collect()
}

/// Every path in the code that starts at a crate or at `super`, as text from its root (`crate::`
/// or a crate's name), with its line.
fn resolved_paths(name: &str, code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    let mut modules = module_of(name);
    // For each open brace: whether it opened an inline module.
    let mut braces = Vec::new();
    for at in 0..tokens.len() {
        let before = |back: usize| at.checked_sub(back).map_or("", |index| tokens[index].1);
        match tokens[at].1 {
            "{" => {
                let is_module = before(2) == "mod";
                if is_module {
                    modules.push(before(1).to_owned());
                }
                braces.push(is_module);
            }
            "}" if braces.pop() == Some(true) => {
                modules.pop();
            }
            // The start of a path, not its middle, and not a method or field of that name.
            "crate" | "super" | "self" | "std" | "kivafs" | "kivafs_mount" | "fuser"
                if !matches!(before(1), "::" | ".") =>
            {
                let mut end = at;
                expand(&tokens, &mut end, String::new(), &mut |line, path| {
                    paths.push((line, resolve(&modules, path)));
                });
            }
            _ => {}
        }
    }
    paths
}

/// Follows the path that starts at `at`, through groups, and calls `found` with each whole one.
fn expand(tokens: &[(usize, &str)], at: &mut usize, mut prefix: String, found: &mut dyn FnMut(usize, &str)) {
    loop {
        let Some((line, token)) = tokens.get(*at).copied() else { return };
        *at += 1;
        if token == "{" {
            while tokens.get(*at).is_some_and(|(_, token)| *token != "}") {
                let start = *at;
                expand(tokens, at, prefix.clone(), found);
                // What is no path ("as name", a comma) is passed over.
                while tokens.get(*at).is_some_and(|(_, token)| !matches!(*token, "," | "}")) {
                    *at += 1;
                }
                if tokens.get(*at).is_some_and(|(_, token)| *token == ",") || *at == start {
                    *at += 1;
                }
            }
            *at += 1;
            return;
        }
        if !prefix.is_empty() {
            prefix.push_str("::");
        }
        prefix.push_str(token);
        if tokens.get(*at).is_none_or(|(_, token)| *token != "::") {
            found(line, &prefix);
            return;
        }
        *at += 1;
    }
}

/// The module that a file is, from its crate's root.
fn module_of(name: &str) -> Vec<String> {
    let inside = name.split_once("src/").map_or("", |(_, inside)| inside);
    let inside = inside.trim_end_matches(".rs").trim_end_matches("mod").trim_end_matches('/');
    inside.split('/').filter(|part| !matches!(*part, "" | "lib" | "main")).map(str::to_owned).collect()
}

fn resolve(modules: &[String], path: &str) -> String {
    let mut parts: Vec<&str> = path.split("::").collect();
    if !matches!(parts[0], "super" | "self") {
        return path.to_owned();
    }
    let mut base: Vec<&str> = modules.iter().map(String::as_str).collect();
    while let Some(first @ ("super" | "self")) = parts.first().copied() {
        if first == "super" {
            base.pop();
        }
        parts.remove(0);
    }
    [&["crate"][..], &base, &parts].concat().join("::")
}

/// Names and punctuation, with their lines; `::` is one token.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |character: char| character.is_alphanumeric() || character == '_';
            let length = if is_word(first) {
                rest.find(|character| !is_word(character)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((index + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// The same text with the contents of comments, strings and character literals as spaces.
fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (end, inner) = match literal_end(bytes, at) {
            Some(end) => (end, at..end),
            None => (at + 1, at..at),
        };
        out[inner].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(out).expect("whole literals were blanked")
}

/// Where the comment or literal ends that starts at `at`, if one does.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let find = |from: usize, end: &[u8]| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        at + found.map_or(rest.len(), |found| from + found + end.len())
    };
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(find(2, b"*/")),
        [b'r', b'"' | b'#', ..] if !after_word => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            let quoted = rest.get(1 + hashes) == Some(&b'"');
            quoted.then(|| find(2 + hashes, &[b"\"", &b"#".repeat(hashes)[..]].concat()))
        }
        [b'"', ..] => {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            Some((end + 1).min(bytes.len()))
        }
        [b'\'', b'\\', _, ..] => Some(find(3, b"'")),
        // A character of up to four bytes; else it is a lifetime.
        [b'\'', ..] => (2..=5).find(|length| rest.get(*length) == Some(&b'\'')).and_then(|length| {
            let inner = std::str::from_utf8(&rest[1..length]).ok()?;
            (inner.chars().count() == 1).then_some(at + length + 1)
        }),
        _ => None,
    }
}

/// The same text with what is compiled for tests only as spaces.
fn blank_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = code[from..].find(MARK).map(|found| from + found) {
        let mut depth = 0;
        let mut end = start;
        for (offset, byte) in code.bytes().enumerate().skip(start + MARK.len()) {
            end = offset + 1;
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            if depth == 0 && matches!(byte, b'}' | b';') {
                break;
            }
        }
        out[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        from = end.max(start + MARK.len());
    }
    String::from_utf8(out).expect("whole items were blanked")
}

/// Asserts that the source has exactly these violations, given by line and a piece of the message.
#[track_caller]
fn expect(name: &str, text: &str, expected: &[(usize, &str)]) {
    let found = violations(name, text, false);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (line, piece) in expected {
        let start = format!("{name}:{line}: ");
        assert!(found.iter().any(|message| message.starts_with(&start) && message.contains(piece)), "{found:?}");
    }
}

#[test]
fn an_import_that_points_up_is_found_however_it_is_written() {
    expect("src/log/ring.rs", "use crate::store::Store;", &[(1, "store lies above it")]);
    expect("src/log/ring.rs", "use crate::backend::Disk;\nuse super::pointer::Pointer;", &[]);
    expect("src/log/ring.rs", "use super::super::tree::Root;", &[(1, "crate::tree::Root")]);
    expect("src/log/mod.rs", "use super::tree::Root;\nuse self::ring::X;", &[(1, "crate::tree::Root")]);
    expect("src/log/mod.rs", "mod a { use super::super::tree::Root; }\nuse super::backend::X;", &[(1, "tree")]);
    expect(
        "src/backend/file.rs",
        "use crate::{\n    log::{self, X},\n    store as s,\n};",
        &[(2, "log"), (2, "log"), (3, "store")],
    );
    expect("src/backend/file.rs", "fn f() -> u8 {\n    crate::log::checksum(&[])\n}", &[(2, "checksum")]);
    expect("src/backend/file.rs", "// crate::log\n/* crate::log */ const X: &str = \"crate::log\";", &[]);
    expect("src/backend/file.rs", "#[cfg(test)]\nmod tests { use crate::log::X; }", &[(2, "log")]);
    expect("src/store/mod.rs", "use crate::{backend::Disk, log::ring::Ring, tree::Tree};", &[]);
}

#[test]
fn what_a_part_must_not_use_is_found() {
    expect("src/tree/node.rs", "use crate::log::{Pointer, checksum};\nuse super::Value;", &[]);
    expect("src/tree/node.rs", "use crate::log::{Pointer, Ring};", &[(1, "pointers only")]);
    expect("src/tree/node.rs", "use crate::backend::Disk;", &[(1, "no I/O")]);
    expect("src/tree/node.rs", "use std::{fs::File, sync::Arc};", &[(1, "std::fs")]);
    expect("src/tree/node.rs", "fn f() { std::thread::yield_now(); }", &[(1, "std::thread")]);
    expect("src/tree/node.rs", "#[cfg(test)]\nmod tests { use std::thread; }", &[]);
    expect("mount/src/fs/file.rs", "use fuser::FileAttr;", &[(1, "no FUSE types")]);
    expect("mount/src/fs/file.rs", "use crate::facade::Facade;\nuse crate::life::X;", &[(1, "facade"), (2, "life")]);
    expect("mount/src/fs/mod.rs", "use super::cli::X;\nuse kivafs::log::Pointer;", &[(1, "cli"), (2, "segments")]);
    expect("mount/src/fs/mod.rs", "use kivafs::store::Store;\nuse kivafs::tree::Value;", &[]);
    expect("mount/src/facade/mod.rs", "use crate::fs::Fs;\nuse fuser::Session;", &[]);
    expect("mount/src/fs/mod.rs", "use crate::keys::Keys;\nuse crate::fs::keys::If;", &[(1, "keys")]);
    expect("mount/src/keys/mod.rs", "use crate::fs::If;\nuse crate::kvlds::wire;", &[(2, "kvlds")]);
    expect("mount/src/facade.rs", "use kivafs_mount::cli::X;", &[(1, "cli")]);
}

#[test]
fn what_is_untidy_is_found() {
    expect("src/store/mod.rs", "fn f() {\n    todo!();\n    g().unwrap();\n}", &[(2, "todo!"), (3, "unwrap")]);
    expect("src/store/mod.rs", "/// `todo!()`, `.unwrap()`\nconst X: char = '\"'; // todo!()", &[]);
    expect(
        "src/store/mod.rs",
        "#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}\nfn h() { g().unwrap(); }",
        &[(5, "unwrap")],
    );
    expect("tests/model.rs", "#[test]\n#[ignore]\nfn f() { g().unwrap() }", &[(2, "#[ignore")]);
    let declares = "#[cfg(test)]\nmod model;\n#[cfg(test)]\nmod tests { mod inner; }\nmod node;";
    assert_eq!(modules_for_tests("src/tree/mod.rs", declares), ["src/tree/model.rs"]);
    assert_eq!(modules_for_tests("src/tree/node.rs", "#[cfg(test)] mod tests;"), ["src/tree/node/tests.rs"]);
    assert!(violations("src/tree/model.rs", "fn f() { g().unwrap() }", true).is_empty());
    expect("src/store/utils.rs", "", &[(1, "does not say")]);
    expect("mount/src/common/x.rs", "fn f<'a>(x: &'a str) { unimplemented!() }", &[(1, "common"), (1, "unimpl")]);
    expect("src/store/mod.rs", &"\n".repeat(LINES_MAX + 1), &[(LINES_MAX, "901 lines")]);
    expect("src/store/mod.rs", "const X: &str = r#\"\"todo!\"#; fn f() { todo!() }", &[(1, "todo!")]);
}
