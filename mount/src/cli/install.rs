//! install, uninstall.

use crate::cli::failure::Failure;
use crate::cli::words::{InstallWords, Words};
use crate::cli::{options, store_options};
use crate::install::layout::{Layout, Texts};
use crate::install::put::{Done, PutError};
use clap::CommandFactory;
use std::path::{Path, PathBuf};

pub fn install(words: &InstallWords) -> Result<(), Failure> {
    let layout = layout(words)?;
    let done = crate::install::install(&layout, texts()).map_err(failed)?;
    tell(&done);
    if layout.root == Path::new("/") && done.iter().any(|(path, done)| is_unit(path) && *done != Done::Kept) {
        println!("systemd learns of its unit with 'systemctl daemon-reload'");
    }
    Ok(())
}

pub fn uninstall(words: &InstallWords) -> Result<(), Failure> {
    tell(&crate::install::uninstall(&layout(words)?, texts()).map_err(failed)?);
    Ok(())
}

fn is_unit(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "service")
}

fn texts() -> Texts {
    Texts { command: Words::command(), store_options: store_options::HELP, mount_options: options::HELP }
}

fn layout(words: &InstallWords) -> Result<Layout, Failure> {
    let not_absolute = || Failure::Usage(format!("--prefix '{}': write an absolute path", words.prefix.display()));
    if !words.prefix.is_absolute() {
        return Err(not_absolute());
    }
    Ok(Layout { prefix: words.prefix.clone(), root: words.root.clone() })
}

fn failed(error: PutError) -> Failure {
    let cure = match error.error.kind() {
        std::io::ErrorKind::PermissionDenied => ": do it as root, or below a --root of your own",
        _ => "",
    };
    Failure::Failed(format!("{error}{cure}"))
}

fn tell(done: &[(PathBuf, Done)]) {
    for (path, done) in done {
        let what = match done {
            Done::Made => "made",
            Done::Replaced => "replaced",
            Done::Kept => "is there",
            Done::Left => "left as it is",
            Done::Removed => "removed",
            Done::Absent => "not there",
        };
        println!("{}: {what}", path.display());
    }
}
