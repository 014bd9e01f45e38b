#!/usr/bin/env bash
# A real S3 server for tests: Ceph on this one machine (a monitor, a store on a sparse file, the S3
# gateway), from Debian's packages, on loopback.
#
#   tests/real/ceph.sh start     it answers, with the bucket kivafs-test in it, when this returns;
#                                prints the endpoint
#   tests/real/ceph.sh stop      ends it; what was stored stays for the next start
#   tests/real/ceph.sh kill9     ends it as a crash of the machine's processes would
#   tests/real/ceph.sh wipe      ends it and removes what was stored
#   tests/real/ceph.sh up        exit code 0 if it is up
#   tests/real/ceph.sh env       what to set so that programs find it: eval "$(tests/real/ceph.sh env)"
#
# Any number of programs may `start` it at once. KIVAFS_CEPH_PORT (default 7481) is where it listens,
# KIVAFS_CEPH_DIR where it keeps everything: by default another directory for each port, so that another
# port is another server. With KIVAFS_TEST_S3=ENDPOINT set nothing is started: the bucket is made at
# that server, which must know the same key.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/need.sh
PATH=$PATH:/usr/sbin:/sbin

key=testkey
secret=testsecret
region=us-east-1
bucket=kivafs-test

usual_port=7481
port=${KIVAFS_CEPH_PORT:-$usual_port}
# Below the ports that the kernel hands out by itself.
mon_port=$((port + 10000))
endpoint=${KIVAFS_TEST_S3:-http://127.0.0.1:$port}
endpoint=${endpoint%/}

# Memory is too small a disk for it.
place=${TMPDIR:-/var/tmp}
[ "$(stat -f -c %T "$place")" != tmpfs ] || place=/var/tmp
usual_dir=$place/kivafs-ceph-$UID
[ "$port" = "$usual_port" ] || usual_dir+=-$port
dir=$(realpath -m "${KIVAFS_CEPH_DIR:-$usual_dir}")
conf=$dir/ceph.conf
export CEPH_CONF=$conf

# From the one that all depend on.
daemons=(mon.a osd.0 client.rgw)

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# poll SECONDS WHAT COMMAND...: until the command succeeds.
poll() {
    local limit=$1 what=$2 since=$SECONDS
    shift 2
    until "$@" >"$dir/log/poll.out" 2>&1 9>&-; do
        if [ $((SECONDS - since)) -ge "$limit" ]; then
            logs
            fail "Ceph in $dir: not within $limit s: $what"
        fi
        sleep 0.1
    done
}

# The ends of the daemons' logs.
logs() {
    local log
    for log in "$dir"/log/*; do
        [ -s "$log" ] || continue
        echo "-- the end of $log:"
        tail -n 15 "$log"
    done >&2
}

# pid_of DAEMON: its process, if that lives. A number that another process got since does not count.
pid_of() {
    local pid
    { read -r pid <"$dir/run/$1.pid"; } 2>/dev/null && [ -n "$pid" ] &&
        grep -qzxF -e "$conf" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

is_gone() {
    ! pid_of "$1" >/dev/null
}

# launch DAEMON COMMAND...: it goes into the background by itself, and must hold neither our lock
# nor our output.
launch() {
    local daemon=$1
    shift
    is_gone "$daemon" || return 0
    if ! "$@" --conf "$conf" </dev/null >"$dir/log/$daemon.out" 2>&1 9>&-; then
        logs
        fail "Ceph in $dir: cannot start: $*"
    fi
}

# s3 PATH OPTION...: the status of a signed request that curl makes with these options.
s3() {
    curl --silent --max-time 20 --output /dev/null --write-out '%{http_code}' "${@:2}" \
        --aws-sigv4 "aws:amz:$region:s3" --user "$key:$secret" \
        --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$endpoint$1"
}

answers() {
    curl --silent --max-time 5 --output /dev/null "$endpoint/"
}

is_up() {
    local daemon
    [ -e "$dir/ready" ] || return 1
    for daemon in "${daemons[@]}"; do
        ! is_gone "$daemon" || return 1
    done
    [ "$(s3 "/$bucket" --head)" = 200 ]
}

configure() {
    cat >"$conf" <<END
[global]
fsid = $1
mon host = [v2:127.0.0.1:$mon_port]
ms bind msgr1 = false
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
keyring = $dir/keyring
log file = $dir/log/\$name.log
admin socket = $dir/run/\$name.asok
pid file = $dir/run/\$name.pid
run dir = $dir/run
crash dir = $dir/crash
[mon]
mon data = $dir/mon
mon initial members = a
auth allow insecure global id reclaim = false
[osd]
osd data = $dir/osd
osd objectstore = bluestore
osd mon shutdown timeout = 1
bluestore block create = true
bluestore block size = $((20 << 30))
# Memory is for what is tested.
bluestore cache autotune = false
bluestore cache size = $((256 << 20))
[client.rgw]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw thread pool size = 64
rgw enable usage log = false
rgw enable ops log = false
rgw dynamic resharding = false
# What was deleted is freed in seconds, not in hours.
rgw gc obj min wait = 10
rgw gc processor period = 10
rgw gc processor max time = 10
END
}

# A monitor and an empty store.
create() {
    local fsid
    fsid=$(cat /proc/sys/kernel/random/uuid)
    mkdir -p "$dir"/{mon,osd,rgw,run,log,crash}
    configure "$fsid"
    ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$dir/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool "$dir/keyring" --gen-key -n client.rgw --cap mon 'allow rwx' --cap osd 'allow rwx'
    ceph-authtool "$dir/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
    monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon_port]" "$dir/monmap"
    ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
}

start() {
    local osd
    need ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw ceph:ceph-common curl:curl >&2
    if is_up; then
        return
    fi
    # If one is missing, the others may wait for it for ever.
    stop KILL
    ! answers || fail "something else answers at $endpoint: name another port with KIVAFS_CEPH_PORT"
    # Of a start that was cut short nothing is kept, and of what fills the disk nothing either.
    if [ ! -e "$dir/ready" ] || [ "$(du -m "$dir/osd/block" | cut -f1)" -gt $((5 << 10)) ]; then
        remove
    fi
    if [ ! -e "$conf" ]; then
        mkdir -p "$dir"
        create >"$dir.new" 2>&1 || { cat "$dir.new" >&2; fail "Ceph in $dir: cannot be made"; }
        rm "$dir.new"
    fi
    launch mon.a ceph-mon -i a
    if [ ! -e "$dir/ready" ]; then
        osd=$(cat /proc/sys/kernel/random/uuid)
        poll 30 "the monitor takes in a new store" timeout 20 ceph osd new "$osd"
        ceph-osd -i 0 --mkfs --osd-uuid "$osd" >"$dir/log/mkfs.out" 2>&1 9>&- || { logs; fail "ceph-osd --mkfs"; }
    fi
    launch osd.0 ceph-osd -i 0
    launch client.rgw radosgw -n client.rgw
    poll 60 "the gateway answers" answers
    if [ ! -e "$dir/ready" ]; then
        poll 60 "a user is made" timeout 30 radosgw-admin user create --uid=test --display-name=test \
            --access-key="$key" --secret="$secret"
    fi
    poll 60 "the bucket $bucket is made" bucket
    # The first object of a bucket takes it seconds.
    poll 60 "an object is written" object
    touch "$dir/ready"
}

bucket() {
    [ "$(s3 "/$bucket" --request PUT --data "")" = 200 ]
}

object() {
    [ "$(s3 "/$bucket/first" --request PUT --data "")" = 200 ]
}

# signal DAEMON PID SIGNAL: it may be gone by now.
signal() {
    kill "-$3" "$2" || is_gone "$1"
}

# end DAEMON [SIGNAL]: what does not end by itself within 20 s is killed.
end() {
    local pid since=$SECONDS
    pid=$(pid_of "$1") || return 0
    signal "$1" "$pid" "${2:-TERM}"
    until is_gone "$1" || [ $((SECONDS - since)) -ge 20 ]; do
        sleep 0.1
    done
    is_gone "$1" || signal "$1" "$pid" KILL
    poll 30 "$1 (pid $pid) ends" is_gone "$1"
    rm -f "$dir/run/$1.pid"
}

stop() {
    local index
    for ((index = ${#daemons[@]} - 1; index >= 0; index--)); do
        end "${daemons[index]}" "$@"
    done
}

remove() {
    [ -e "$dir" ] || return 0
    if [ ! -e "$conf" ] && [ -n "$(ls -A "$dir")" ]; then
        fail "$dir is no state of a Ceph: it is left alone"
    fi
    rm -rf --one-file-system "$dir"
}

case "${1:-}" in
env)
    echo "export KIVAFS_TEST_S3=$endpoint AWS_ENDPOINT_URL=$endpoint AWS_REGION=$region"
    echo "export AWS_ACCESS_KEY_ID=$key AWS_SECRET_ACCESS_KEY=$secret"
    exit
    ;;
up)
    if [ -n "${KIVAFS_TEST_S3:-}" ]; then answers; else is_up; fi
    exit
    ;;
start | stop | kill9 | wipe) ;;
*) fail "usage: tests/real/ceph.sh start|stop|kill9|wipe|up|env" ;;
esac

if [ -n "${KIVAFS_TEST_S3:-}" ]; then
    [ "$1" = start ] || fail "$1: the server at $endpoint was not started here (KIVAFS_TEST_S3 is set)"
    need curl:curl >&2
    answers || fail "nothing answers at $endpoint (KIVAFS_TEST_S3)"
    bucket || fail "the bucket $bucket cannot be made at $endpoint (KIVAFS_TEST_S3)"
    echo "$endpoint"
    exit
fi

mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock --timeout 600 9 || fail "another one has been busy with $dir for ten minutes"
case $1 in
start)
    start
    echo "$endpoint"
    ;;
stop) stop ;;
kill9) stop KILL ;;
wipe)
    stop
    remove
    ;;
esac
