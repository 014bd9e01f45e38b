//! install and uninstall, below a root of their own; and that what they put there is what its readers
//! take: man, the shells, systemd.

mod place;

use assert_fs::TempDir;
use place::{Said, kivafs};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const HELPERS: [&str; 4] = ["mount.kivafs", "mount.fuse.kivafs", "umount.kivafs", "umount.fuse.kivafs"];

struct Root(TempDir);

impl Root {
    fn new() -> Root {
        Root(TempDir::new().unwrap())
    }

    fn run(&self, command: &str) -> Said {
        kivafs([command, "--root", self.0.path().to_str().unwrap(), "--prefix", "/usr"])
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// All files and links below it: their inodes, sizes and modes.
    fn files(&self) -> BTreeMap<PathBuf, (u64, u64, u32)> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.0.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                match meta.is_dir() {
                    true => folders.push(path),
                    false => drop(files.insert(path, (meta.ino(), meta.size(), meta.mode()))),
                }
            }
        }
        files
    }
}

#[test]
fn install_puts_all_in_place_and_a_second_time_changes_nothing() {
    let root = Root::new();
    let said = root.run("install").silently().text();
    assert!(said.contains("/usr/bin/kivafs: made\n") && said.contains("/etc/kivafs/example.conf: made\n"), "{said}");
    let program = root.path("usr/bin/kivafs");
    assert_eq!(std::fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o755);
    let version = Said(Command::new(&program).arg("--version").output().unwrap());
    assert!(version.silently().text().starts_with("kivafs "));
    for name in HELPERS {
        assert_eq!(std::fs::read_link(root.path("usr/sbin").join(name)).unwrap(), Path::new("/usr/bin/kivafs"));
    }
    for file in ["share/man/man1/kivafs.1", "share/man/man1/kivafs-bench-kv.1", "share/man/man8/mount.kivafs.8"] {
        assert!(root.path("usr").join(file).exists(), "{file}");
    }
    let before = root.files();
    let said = root.run("install").silently().text();
    assert!(said.lines().all(|line| line.ends_with(": is there")), "{said}");
    assert_eq!(root.files(), before);
}

#[test]
fn uninstall_takes_all_away_that_is_ours() {
    let root = Root::new();
    root.run("install").silently();
    let theirs = root.path("usr/sbin/mount.other");
    std::fs::write(&theirs, "").unwrap();
    let said = root.run("uninstall").silently().text();
    assert!(said.lines().all(|line| line.ends_with(": removed")), "{said}");
    assert_eq!(root.files().into_keys().collect::<Vec<_>>(), [theirs]);
    assert!(!root.path("etc/kivafs").exists());
    let said = root.run("uninstall").silently().text();
    assert!(said.lines().all(|line| line.ends_with(": not there")), "{said}");
}

#[test]
fn settings_that_somebody_changed_stay() {
    let root = Root::new();
    root.run("install").silently();
    let example = root.path("etc/kivafs/example.conf");
    std::fs::write(&example, "STORE=/mine\n").unwrap();
    std::fs::write(root.path("etc/kivafs/notes.conf"), "").unwrap();
    for command in ["install", "uninstall"] {
        let said = root.run(command).silently().text();
        assert!(said.contains("/etc/kivafs/example.conf: left as it is\n"), "{said}");
        assert_eq!(std::fs::read_to_string(&example).unwrap(), "STORE=/mine\n");
    }
    assert_eq!(root.files().len(), 2);
}

#[test]
fn a_name_that_somebody_else_has_taken_is_refused_before_anything_is_changed() {
    for (taken, why) in [(None, "no link"), (Some("/opt/other"), "/opt/other")] {
        let root = Root::new();
        std::fs::create_dir_all(root.path("usr/sbin")).unwrap();
        let path = root.path("usr/sbin/umount.kivafs");
        match taken {
            Some(target) => symlink(target, &path).unwrap(),
            None => std::fs::write(&path, "").unwrap(),
        }
        root.run("install").fails(1, &["umount.kivafs", why, "move it away"]);
        assert_eq!(root.files().into_keys().collect::<Vec<_>>(), [path]);
    }
}

#[test]
fn an_older_program_is_replaced_whole_also_while_it_runs() {
    let root = Root::new();
    std::fs::create_dir_all(root.path("usr/bin")).unwrap();
    let program = root.path("usr/bin/kivafs");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut running = Command::new(&program).arg("600").spawn().unwrap();
    let said = root.run("install").silently().text();
    assert!(said.contains("/usr/bin/kivafs: replaced\n"), "{said}");
    assert!(running.try_wait().unwrap().is_none());
    running.kill().unwrap();
    running.wait().unwrap();
    // And by itself: what is run is what is put there.
    let again = Command::new(&program).args(["install", "--prefix", "/usr", "--root"]).arg(root.0.path()).output();
    assert!(Said(again.unwrap()).silently().text().contains("/usr/bin/kivafs: is there\n"));
}

#[test]
fn where_sbin_is_no_link_the_helpers_are_there() {
    let root = Root::new();
    std::fs::create_dir_all(root.path("sbin")).unwrap();
    root.run("install").silently();
    for name in HELPERS {
        assert!(root.path("sbin").join(name).is_symlink() && !root.path("usr/sbin").join(name).exists(), "{name}");
    }
}

#[test]
fn a_prefix_must_be_absolute() {
    kivafs(["install", "--prefix", "usr"]).fails(2, &["--prefix", "absolute"]);
}

/// The program must be there: a page that nobody could read would pass.
fn reads(program: &str, words: &[&str], file: &Path) -> Said {
    let mut command = Command::new(program);
    command.args(words).arg(file).env("LC_ALL", "C.UTF-8");
    Said(command.output().unwrap_or_else(|error| panic!("{program}: {error}: install it")))
}

/// As plain text, with all warnings.
fn groff(root: &Root, page: &Path) -> Said {
    let include = root.path("usr/share/man");
    let plain = ["-P-c", "-P-b", "-P-o", "-P-u"];
    let words = [&["-man", "-ww", "-Tutf8", "-Kutf8"], &plain[..], &["-I", include.to_str().unwrap()]].concat();
    reads("groff", &words, page)
}

#[test]
fn man_renders_each_page_without_a_warning() {
    let root = Root::new();
    root.run("install").silently();
    let pages: Vec<PathBuf> =
        root.files().into_keys().filter(|path| path.starts_with(root.path("usr/share/man"))).collect();
    assert!(pages.len() > 15, "{pages:?}");
    for page in &pages {
        let text = groff(&root, page).silently().text();
        for heading in ["NAME", "SYNOPSIS", "SEE ALSO"] {
            assert!(text.contains(heading), "{}: {heading}", page.display());
        }
        assert!(!text.contains("serve-in-background"), "{}", page.display());
    }
    let of = |page: &str| groff(&root, &root.path("usr/share/man").join(page)).text();
    for word in ["cache=SIZE", "disk_cache=DIR[:SIZE]", "commit=SECONDS", "remount", "user_allow_other"] {
        assert!(of("man8/mount.kivafs.8").contains(word), "{word}");
    }
    assert!(of("man1/kivafs-mount.1").contains("endpoint=URL"));
}

#[test]
fn bash_reads_the_completions() {
    let root = Root::new();
    root.run("install").silently();
    let script = root.path("usr/share/bash-completion/completions/kivafs");
    reads("bash", &["-n"], &script).silently();
    let asked = format!(
        "source {}; COMP_WORDS=(kivafs um); COMP_CWORD=1; _kivafs kivafs um kivafs; echo ${{COMPREPLY[@]}}",
        script.display()
    );
    assert_eq!(Said(Command::new("bash").args(["-c", &asked]).output().unwrap()).silently().text(), "umount\n");
}

/// What stands in the unit is what systemd knows; also where systemd does not run.
#[test]
fn the_unit_starts_the_program_that_was_installed() {
    let root = Root::new();
    root.run("install").silently();
    let unit = std::fs::read_to_string(root.path("usr/lib/systemd/system/kivafs@.service")).unwrap();
    let line = |line: &str| unit.lines().any(|each| each == line);
    assert!(line("ExecStart=/usr/bin/kivafs mount -f -o ${OPTIONS} -- ${STORE} ${DIR}"), "{unit}");
    assert!(line("Type=notify") && line("EnvironmentFile=/etc/kivafs/%i.conf"), "{unit}");
    let settings = std::fs::read_to_string(root.path("etc/kivafs/example.conf")).unwrap();
    for name in ["STORE=", "DIR=", "OPTIONS="] {
        assert!(settings.lines().any(|line| line.starts_with(name)), "{settings}");
    }
}
