//! The man page mount.kivafs(8): for who reaches a store by way of mount(8), fstab or systemd.

use crate::install::help_text;
use clap_mangen::roff::{Roff, bold, italic, line_break, roman};

/// The page, with both lists of options.
pub fn page(version: &str, store_options: &str, mount_options: &str) -> Vec<u8> {
    let mut roff = Roff::new();
    roff.control("TH", ["mount.kivafs", "8", "", &format!("kivafs {version}")]);
    section(&mut roff, "NAME", &["mount.kivafs, umount.kivafs - mount and unmount a kivafs store"]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([
        bold("mount -t kivafs"),
        roman(" [-fnrsv] [-o "),
        italic("options"),
        roman("] "),
        italic("STORE DIR"),
        line_break(),
        bold("umount"),
        roman(" [-flnrv] "),
        italic("DIR"),
    ]);
    section(
        &mut roff,
        "DESCRIPTION",
        &[
            "mount(8) and umount(8) call these for the types kivafs and fuse.kivafs. STORE is the path of a \
             local file, or s3://BUCKET/PREFIX. mount returns when the store is usable; the process that \
             serves it goes on in the background and logs to syslog.",
            "umount(8) waits until everything is durable, and fails if that cannot be had. While programs \
             have files open there it is refused; umount -l takes the names away at once and serves what is \
             open; umount -f ends all that goes on there. If the store stays mounted elsewhere (by a bind mount), \
             umount returns at once, and the last one waits.",
            "An ordinary user mounts by way of fusermount3(1): a store and a directory of their own, with \
             user in fstab or with kivafs mount, and unmounts it with umount(8), too. Others get in only with \
             allow_other, which needs user_allow_other in /etc/fuse.conf.",
        ],
    );
    roff.control("SH", ["OPTIONS"]);
    help_text::add(&mut roff, store_options);
    help_text::add(&mut roff, mount_options);
    section(
        &mut roff,
        "FSTAB",
        &["For a local file, one in S3, and one that users mount. nofail lets the machine boot without it."],
    );
    example(
        &mut roff,
        &[
            "/srv/notes.kiva  /mnt/notes  kivafs  nofail  0 0",
            "s3://bucket/box  /mnt/box    kivafs  _netdev,nofail,region=eu-north-1  0 0",
            "/home/ann/store  /home/ann/s kivafs  noauto,user  0 0",
        ],
    );
    section(
        &mut roff,
        "SYSTEMD",
        &["Instead of a line in fstab: kivafs@NAME.service reads STORE, DIR and OPTIONS, and credentials for S3 \
           if there are any, from /etc/kivafs/NAME.conf. It is ready when the mount is usable; to stop it makes \
           everything durable, and is given the time that takes."],
    );
    example(&mut roff, &["cp /etc/kivafs/example.conf /etc/kivafs/notes.conf", "systemctl enable --now kivafs@notes"]);
    section(
        &mut roff,
        "WHAT IS PROMISED",
        &[
            "fsync(2) of a file or directory makes durable all that was done in the whole store before. Without, \
             a change is durable after commit= seconds. sync(2) does no more than that: Linux does not tell FUSE \
             file systems.",
            "What a crash leaves is the state at one instant, no older than the last fsync. There is nothing to \
             repair: the sixth field of fstab is 0.",
        ],
    );
    section(
        &mut roff,
        "EXIT STATUS",
        &["As of mount(8): 0 done; 1 the words are wrong; 32 it was not done, for the reason that is told in one \
           line on stderr."],
    );
    section(&mut roff, "SEE ALSO", &["kivafs(1), mount(8), umount(8), fstab(5), fusermount3(1), systemd.mount(5)"]);
    roff.to_roff().into_bytes()
}

fn section(roff: &mut Roff, heading: &str, paragraphs: &[&str]) {
    roff.control("SH", [heading]);
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*paragraph)]);
    }
}

fn example(roff: &mut Roff, lines: &[&str]) {
    roff.control("PP", []);
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(*line)]);
    }
    roff.control("fi", []);
}
