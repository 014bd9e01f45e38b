//! The words that mount(8) and umount(8) give to `mount.kivafs` and `umount.kivafs`.
//!
//! `mount.TYPE SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]` and
//! `umount.TYPE DIR [-flnrv] [-N NAMESPACE] [-t TYPE]`. `-f` means "fake" for one, "force" for
//! the other; so clap's commands are not used for them.

use crate::cli::failure::Failure;
use crate::cli::options::Unknown;
use crate::life::unmount::Manner;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What the words mean.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<T> {
    /// To be done.
    Do(T),
    /// `-h` or `-V`: to be shown.
    Show(String),
}

/// What `mount.kivafs` was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct HelperMount {
    pub store: PathBuf,
    pub dir: PathBuf,
    pub options: Vec<OsString>,
    /// `-s`.
    pub unknown: Unknown,
    /// `-f`: everything but the mount.
    pub fake: bool,
    /// `-v`.
    pub verbose: bool,
}

/// What `umount.kivafs` was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct HelperUmount {
    pub place: PathBuf,
    pub manner: Manner,
}

const MOUNT_USAGE: &str = "usage: mount.kivafs STORE DIR [-sfnvhV] [-o OPTIONS]";
const UMOUNT_USAGE: &str = "usage: umount.kivafs DIR [-flnrvhV]";

/// The words of `mount.kivafs`.
pub fn mount(words: &[OsString]) -> Result<Asked<HelperMount>, Failure> {
    let taken = Taken::from(words, b"sfnvhV", b"Not")?;
    if let Some(text) = taken.to_show(MOUNT_USAGE) {
        return Ok(Asked::Show(text));
    }
    match <[OsString; 2]>::try_from(taken.places) {
        Ok([store, dir]) => Ok(Asked::Do(HelperMount {
            store: store.into(),
            dir: dir.into(),
            options: taken.values.into_iter().filter(|(flag, _)| *flag == b'o').map(|(_, value)| value).collect(),
            unknown: if taken.flags.contains(&b's') { Unknown::Ignore } else { Unknown::Refuse },
            fake: taken.flags.contains(&b'f'),
            verbose: taken.flags.contains(&b'v'),
        })),
        Err(_) => Err(Failure::Usage(format!("{MOUNT_USAGE}: see mount.kivafs(8)"))),
    }
}

/// The words of `umount.kivafs`.
pub fn umount(words: &[OsString]) -> Result<Asked<HelperUmount>, Failure> {
    let taken = Taken::from(words, b"flnrvhV", b"Nt")?;
    if let Some(text) = taken.to_show(UMOUNT_USAGE) {
        return Ok(Asked::Show(text));
    }
    match <[OsString; 1]>::try_from(taken.places) {
        Ok([place]) => {
            let manner = match (taken.flags.contains(&b'f'), taken.flags.contains(&b'l')) {
                (true, _) => Manner::Forced,
                (false, true) => Manner::Lazy,
                (false, false) => Manner::Orderly,
            };
            Ok(Asked::Do(HelperUmount { place: place.into(), manner }))
        }
        Err(_) => Err(Failure::Usage(format!("{UMOUNT_USAGE}: see mount.kivafs(8)"))),
    }
}

#[derive(Default)]
struct Taken {
    flags: Vec<u8>,
    values: Vec<(u8, OsString)>,
    places: Vec<OsString>,
}

impl Taken {
    fn to_show(&self, usage: &str) -> Option<String> {
        let asked = |letter| self.flags.contains(&letter);
        match (asked(b'h'), asked(b'V')) {
            (true, _) => Some(usage.into()),
            (false, true) => Some(format!("kivafs {}", env!("CARGO_PKG_VERSION"))),
            (false, false) => None,
        }
    }

    /// Flags stand before, between and after places, may be joined, and a value may follow its
    /// flag at once.
    fn from(words: &[OsString], plain: &[u8], valued: &[u8]) -> Result<Taken, Failure> {
        let mut taken = Taken::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            if bytes == b"--" {
                taken.places.extend(words.by_ref().cloned());
            } else if let Some(letter) = long_word(bytes) {
                taken.flags.push(letter);
            } else if bytes.len() < 2 || bytes[0] != b'-' {
                taken.places.push(word.clone());
            } else {
                taken.take_flags(&bytes[1..], plain, valued, &mut words)?;
            }
        }
        if taken.values.iter().any(|(flag, _)| *flag == b'N') {
            return Err(Failure::Usage("-N: not offered: enter the namespace with 'nsenter --mount=NAMESPACE'".into()));
        }
        Ok(taken)
    }

    fn take_flags<'a>(
        &mut self,
        mut letters: &[u8],
        plain: &[u8],
        valued: &[u8],
        words: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), Failure> {
        while let Some((&letter, rest)) = letters.split_first() {
            letters = rest;
            if plain.contains(&letter) {
                self.flags.push(letter);
            } else if valued.contains(&letter) {
                let value = match rest {
                    [] => words.next().cloned(),
                    rest => Some(OsString::from_vec(rest.to_vec())),
                };
                let missing = || Failure::Usage(format!("-{}: a value must follow", letter.escape_ascii()));
                self.values.push((letter, value.ok_or_else(missing)?));
                return Ok(());
            } else {
                return Err(Failure::Usage(format!("-{}: no such option", letter.escape_ascii())));
            }
        }
        Ok(())
    }
}

/// What people try first.
fn long_word(word: &[u8]) -> Option<u8> {
    match word {
        b"--help" => Some(b'h'),
        b"--version" => Some(b'V'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn done<T>(asked: Result<Asked<T>, Failure>) -> T {
        match asked.unwrap() {
            Asked::Do(what) => what,
            Asked::Show(text) => panic!("only shown: {text}"),
        }
    }

    #[test]
    fn words_of_mount() {
        let asked = done(mount(&words("/s /d -sn -v -o ro,cache=1M -onoatime -t fuse.kivafs")));
        assert_eq!((asked.verbose, asked.store, asked.dir), (true, "/s".into(), "/d".into()));
        assert_eq!(asked.options, ["ro,cache=1M", "noatime"]);
        assert_eq!((asked.unknown, asked.fake), (Unknown::Ignore, false));
        let asked = done(mount(&words("-f /s -- -d")));
        assert_eq!((asked.dir, asked.unknown, asked.fake), ("-d".into(), Unknown::Refuse, true));
        for wrong in ["", "/s", "/s /d /e", "/s /d -o", "/s /d -x", "/s /d -N 7"] {
            assert!(matches!(mount(&words(wrong)), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn words_of_umount() {
        let manner = |text: &str| match umount(&words(text)) {
            Ok(Asked::Do(asked)) => Some(asked.manner),
            _ => None,
        };
        assert_eq!(manner("/d"), Some(Manner::Orderly));
        assert_eq!(manner("/d -n -r -v -t fuse.kivafs"), Some(Manner::Orderly));
        assert_eq!(manner("-l /d"), Some(Manner::Lazy));
        assert_eq!(manner("-lf /d"), Some(Manner::Forced));
        assert_eq!(manner("-q /d"), None);
    }

    #[test]
    fn help_and_version_are_shown_whatever_else_is_said() {
        for text in ["-h", "--help", "/s /d -vh", "-V -h"] {
            assert!(matches!(mount(&words(text)), Ok(Asked::Show(shown)) if shown == MOUNT_USAGE), "{text}");
            assert!(matches!(umount(&words(text)), Ok(Asked::Show(shown)) if shown == UMOUNT_USAGE), "{text}");
        }
        for text in ["-V", "--version"] {
            assert!(matches!(mount(&words(text)), Ok(Asked::Show(shown)) if shown.starts_with("kivafs ")), "{text}");
        }
    }
}
