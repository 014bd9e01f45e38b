#!/usr/bin/env bash
# PostgreSQL on a real mount, as a user of its own: what it was answered is there after a crash of its
# own processes, and after kill -9 of the file system under it.
#
#   tests/real/postgres.sh [file|bucket]    what the store lies on

. "$(dirname "$0")/place.sh"
. "$root/tests/need.sh"

clients=4
# Of each client, at most: it is cut off long before.
transactions=1000000

# The newest version that is there: Debian keeps its programs out of PATH.
programs() {
    printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1
}

as_postgres() {
    (cd / && exec runuser -u postgres -- env "PATH=$bin:$PATH" "PGHOST=$plain" PGDATABASE=bench "$@")
}

# Starting it is its recovery, too.
start() {
    as_postgres pg_ctl --silent --wait --timeout=300 --pgdata="$data" --log="$plain/log" \
        --options="-c listen_addresses= -c unix_socket_directories=$plain" start || {
        tail -n 30 "$plain/log"
        return 1
    }
    head -n 1 "$data/postmaster.pid" >"$place/postmaster"
}

# However a case ends, nothing goes on.
leave() {
    if [ -s "$place/postmaster" ] && grep -qs "$data" "/proc/$(<"$place/postmaster")/cmdline"; then
        kill_all $(processes)
    fi
}

stop() {
    as_postgres pg_ctl --silent --wait --timeout=300 --pgdata="$data" --mode=fast stop
}

query() {
    as_postgres psql --no-psqlrc --quiet --tuples-only --no-align --command "$1"
}

# All tables and indexes, with what the indexes should find.
verify() {
    query 'CREATE EXTENSION IF NOT EXISTS amcheck'
    as_postgres pg_amcheck --all --heapallindexed --rootdescend --install-missing
}

# (With each dump it says another secret word that the next one must not repeat.)
dump() {
    as_postgres pg_dump | grep -v '^\\\(un\)\?restrict ' | sha256sum
}

create() {
    trap leave EXIT
    mkdir "$data"
    chown postgres: "$data" "$plain"
    as_postgres initdb --pgdata="$data" --data-checksums --auth=trust --no-instructions
    start
    as_postgres createdb
    as_postgres pgbench --initialize --scale=3
    verify
    before=$(dump)
    stop
    remount
    start
    verify
    [ "$(dump)" = "$before" ]
    stop
}

# Clients that note in files on the disk what was committed, until they are cut off.
bench() {
    mkdir "$plain/$1"
    chown postgres: "$plain/$1"
    query 'TRUNCATE pgbench_history'
    query 'UPDATE pgbench_accounts SET abalance = 0; UPDATE pgbench_tellers SET tbalance = 0;
        UPDATE pgbench_branches SET bbalance = 0'
    query CHECKPOINT
    as_postgres pgbench --no-vacuum --client=$clients --transactions=$transactions --log \
        --log-prefix="$plain/$1/transactions" >"$plain/$1/output" 2>&1 &
    pgbench=$!
    until [ "$(query 'SELECT count(*) > 500 FROM pgbench_history')" = t ]; do
        kill -0 "$pgbench" || { cat "$plain/$1/output"; return 1; }
        sleep 0.1
    done
}

# The first one of its processes, and all that this one has started.
processes() {
    cat "$place/postmaster"
    pgrep -P "$(<"$place/postmaster")"
}

# kill_all PID...: some may have ended by themselves.
kill_all() {
    local pid
    kill -9 "$@" 2>/dev/null || true
    for pid in "$@"; do
        tail --pid="$pid" -f /dev/null
    done
}

# Every transaction that a client was told of is there, perhaps one more of each client, and each as a
# whole.
nothing_lost() {
    local told found
    told=$(cat "$plain/$1"/transactions* | wc -l)
    found=$(query 'SELECT count(*) FROM pgbench_history')
    echo "$told transactions were answered, $found are there"
    [ "$told" -gt 400 ]
    [ "$found" -ge "$told" ]
    [ "$found" -le $((told + clients)) ]
    [ "$(query 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
        AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)
        AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)')" = t ]
    verify
}

after_remount() {
    local before
    before=$(dump)
    stop
    remount
    start
    verify
    [ "$(dump)" = "$before" ]
    stop
}

postgres_is_killed() {
    trap leave EXIT
    start
    bench killed
    # Stopped, it starts no others.
    kill -STOP "$(<"$place/postmaster")"
    kill_all $(processes)
    ! wait "$pgbench"
    start
    nothing_lost killed
    after_remount
}

kivafs_is_killed() {
    trap leave EXIT
    start
    bench "$1"
    running=($(processes))
    kill -9 "$(<"$place/server")"
    tail --pid="$(<"$place/server")" -f /dev/null
    kill_all "${running[@]}"
    ! wait "$pgbench"
    mount_it
    start
    nothing_lost "$1"
    after_remount
}

export KIVAFS_PATIENCE=${KIVAFS_PATIENCE:-1800}
[ -x "$(programs)/initdb" ] || need initdb:postgresql
need runuser:util-linux pgrep:procps
begin postgres "$@"
data=$mnt/data
bin=$(programs)
# Its user must get in.
chmod 711 "$place"
try "initdb, pgbench's tables, pg_amcheck" create
try "kill -9 of PostgreSQL" postgres_is_killed
for round in 1 2 3; do
    try "kill -9 of kivafs under PostgreSQL, round $round" kivafs_is_killed "round-$round"
done
finish
