//! The systemd unit `kivafs@NAME.service`, and the settings that it reads: `/etc/kivafs/NAME.conf`.

use std::path::Path;

/// What the unit asks of systemd, and why:
///
/// * `Type=notify`: what is ordered after it begins when the mount is usable.
/// * `KillMode=mixed`: at the end only the process that serves is asked to stop. It is given more time
///   for as long as it says that it drains.
/// * `TimeoutStartSec=infinity`: opening a store in S3 ends by itself, after `timeout=`.
/// * `Restart=on-abnormal`: after a crash, not after a refusal, which would come again.
pub fn unit(binary: &Path) -> String {
    format!(
        "\
[Unit]
Description=kivafs store %i
Documentation=man:mount.kivafs(8) man:kivafs(1)
Wants=network-online.target
After=network-online.target remote-fs-pre.target
Before=remote-fs.target
AssertPathExists=/etc/kivafs/%i.conf

[Service]
Type=notify
EnvironmentFile=/etc/kivafs/%i.conf
ExecStart={} mount -f -o ${{OPTIONS}} -- ${{STORE}} ${{DIR}}
KillMode=mixed
TimeoutStartSec=infinity
Restart=on-abnormal

[Install]
WantedBy=multi-user.target
",
        binary.display()
    )
}

/// A first one, to be copied.
pub const EXAMPLE: &str = "\
# One file like this for each store that systemd is to mount. For /etc/kivafs/notes.conf:
#   systemctl enable --now kivafs@notes
# Values are taken as they stand: no quotes are needed around spaces. mode 0600 if there are keys in it.

# A local file, or s3://BUCKET/PREFIX.
STORE=/srv/notes.kiva
# An empty directory.
DIR=/mnt/notes
# Options, separated by commas: mount.kivafs(8).
OPTIONS=

# For a store in S3.
#AWS_ACCESS_KEY_ID=
#AWS_SECRET_ACCESS_KEY=
#AWS_REGION=
";
