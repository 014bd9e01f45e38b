//! What lies where.

use crate::install::{mount_page, pages, service};
use clap::Command;
use clap_complete::aot::{Bash, Fish, Zsh, generate};
use std::io;
use std::path::{Path, PathBuf};

/// The directory of settings.
pub const SETTINGS: &str = "/etc/kivafs";

/// The names under which mount(8) and umount(8) call us.
pub const HELPERS: [&str; 4] = ["mount.kivafs", "mount.fuse.kivafs", "umount.kivafs", "umount.fuse.kivafs"];

/// Where to put things.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `/usr/local`, or `/usr` for a package.
    pub prefix: PathBuf,
    /// `/`, or the directory that is to become it.
    pub root: PathBuf,
}

/// What the texts are made from.
pub struct Texts {
    /// The words of the command line.
    pub command: Command,
    /// The list of options that every command takes, as `--help` has it.
    pub store_options: &'static str,
    /// And of those for a mount.
    pub mount_options: &'static str,
}

/// One thing to be put in place.
#[derive(Debug)]
pub struct Item {
    /// Where, seen from the root.
    pub path: PathBuf,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    File {
        bytes: Vec<u8>,
        mode: u32,
    },
    /// To this.
    Link(PathBuf),
    /// A file that is whose system it is.
    Setting(String),
}

impl Layout {
    /// The program, seen from the root.
    pub fn binary(&self) -> PathBuf {
        self.prefix.join("bin/kivafs")
    }

    /// All there is, in the order in which it is put in place: what refers to something comes after it.
    pub fn items(&self, texts: Texts) -> io::Result<Vec<Item>> {
        let binary = self.binary();
        // Not by its path: an update may have replaced what is there.
        let program = std::fs::read("/proc/self/exe")?;
        let mut items = vec![Item { path: binary.clone(), what: What::File { bytes: program, mode: 0o755 } }];
        let sbin = self.sbin();
        items.extend(HELPERS.map(|name| Item { path: sbin.join(name), what: What::Link(binary.clone()) }));
        let share = self.prefix.join("share");
        let mut add = |path: PathBuf, bytes: Vec<u8>| {
            items.push(Item { path, what: What::File { bytes, mode: 0o644 } });
        };
        let version = texts.command.get_version().unwrap_or_default().to_owned();
        for (name, page) in pages::pages(&texts.command)? {
            add(share.join("man/man1").join(name), page);
        }
        let page = mount_page::page(&version, texts.store_options, texts.mount_options);
        add(share.join("man/man8/mount.kivafs.8"), page);
        for name in &HELPERS[1..] {
            add(share.join(format!("man/man8/{name}.8")), b".so man8/mount.kivafs.8\n".to_vec());
        }
        let mut command = texts.command;
        let mut script = |shell| {
            let mut text = Vec::new();
            match shell {
                Script::Bash => generate(Bash, &mut command, "kivafs", &mut text),
                Script::Zsh => generate(Zsh, &mut command, "kivafs", &mut text),
                Script::Fish => generate(Fish, &mut command, "kivafs", &mut text),
            }
            text
        };
        add(share.join("bash-completion/completions/kivafs"), script(Script::Bash));
        add(share.join("zsh/site-functions/_kivafs"), script(Script::Zsh));
        add(share.join("fish/vendor_completions.d/kivafs.fish"), script(Script::Fish));
        add(self.prefix.join("lib/systemd/system/kivafs@.service"), service::unit(&binary).into_bytes());
        let example = What::Setting(service::EXAMPLE.into());
        items.push(Item { path: Path::new(SETTINGS).join("example.conf"), what: example });
        Ok(items)
    }

    /// mount(8) looks into `/sbin`. Where that is a link to `/usr/sbin`, or nothing yet, it is there.
    fn sbin(&self) -> PathBuf {
        match self.root.join("sbin").symlink_metadata() {
            Ok(meta) if meta.is_dir() => "/sbin".into(),
            _ => "/usr/sbin".into(),
        }
    }
}

#[derive(Clone, Copy)]
enum Script {
    Bash,
    Zsh,
    Fish,
}
