//! The example of the keys' API, run; and what it leaves, seen as files.

#[allow(dead_code, reason = "its main is not called here")]
#[path = "../examples/keys.rs"]
mod example;
mod place;

use place::kivafs;

#[test]
fn the_example_runs_and_its_keys_are_files() {
    let directory = assert_fs::TempDir::new().unwrap();
    let store = directory.path().join("store");
    example::run(&store).unwrap();
    let listed = kivafs(["ls".as_ref(), store.as_os_str()]).silently().text();
    assert_eq!(listed, "owner\nstock%2Fapples\nstock%2Fplums\n");
    let got = kivafs(["get".as_ref(), store.as_os_str(), "stock%2Fplums".as_ref()]).silently();
    assert_eq!(got.text(), "3");
    kivafs(["check".as_ref(), store.as_os_str()]).silently();
}
