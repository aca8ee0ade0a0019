#!/bin/sh
# The lab of a machine with a dedicated NIC: what `vagrant up` runs on its two machines and `.ci/vm` in its one.
# POSIX sh, so that it runs under busybox too. Every step ends with a line "lab: NAME: ok" or the script fails.
#
#   lab.sh local                          the demo, and heartbeats under load over TAP
#   lab.sh serve INTERFACE ADDRESS/PREFIX [ARGUMENT...]          a node on the dedicated NIC, until it is ended
#   lab.sh connect INTERFACE ADDRESS/PREFIX PEER [ARGUMENT...]   loads that node and checks its heartbeats
#   lab.sh interface MAC                  the name of the interface with this Ethernet address
#
# BENCH    the bench binary (default: bench on the path)
# SECONDS_EACH   length of each measurement (default 5)
set -eu

bench=${BENCH:-bench}
seconds=${SECONDS_EACH:-5}
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

fail() {
    echo "lab: $*" >&2
    exit 1
}

# Whether the JSON of a run ($1) counts heartbeats that arrived, and has a median delay in the member $2.
check_heartbeats() {
    tr -d ' \n' <"$results/$1.json" >"$results/$1.line"
    grep -q '"received":[1-9]' "$results/$1.line" || fail "$1: no heartbeat arrived"
    grep -q "\"$2\":{[^}]*\"p50\":[0-9]" "$results/$1.line" || fail "$1: no median of $2"
    grep -q '"goodput_bps":[1-9]' "$results/$1.line" || fail "$1: no load arrived"
    echo "lab: $1: ok"
}

run_local() {
    "$bench" demo --seconds "$seconds" --json "$results/demo.json"
    check_heartbeats demo one_way_us
    "$bench" oob --link tap --seconds "$seconds" --variant oob --json "$results/tap.json"
    check_heartbeats tap one_way_us
}

run_connect() {
    interface=$1 address=$2 peer=$3
    shift 3
    "$bench" connect --port "afxdp:$interface" --address "$address" --peer "$peer" --seconds "$seconds" \
        --json "$results/afxdp.json" "$@"
    check_heartbeats afxdp rtt_us
}

find_interface() {
    for candidate in /sys/class/net/*; do
        if [ "$(cat "$candidate/address")" = "$1" ]; then
            basename "$candidate"
            return
        fi
    done
    fail "no interface has the Ethernet address $1; see: ip link"
}

command=${1:-}
[ $# -gt 0 ] && shift
case "$command" in
local) run_local ;;
serve)
    [ $# -ge 2 ] || fail "usage: lab.sh serve INTERFACE ADDRESS/PREFIX"
    interface=$1 address=$2
    shift 2
    ip link set "$interface" up
    exec "$bench" serve --port "afxdp:$interface" --address "$address" "$@"
    ;;
connect)
    [ $# -ge 3 ] || fail "usage: lab.sh connect INTERFACE ADDRESS/PREFIX PEER"
    ip link set "$1" up
    run_connect "$@"
    ;;
interface)
    [ $# -eq 1 ] || fail "usage: lab.sh interface MAC"
    find_interface "$1"
    ;;
*) fail "usage: lab.sh local|serve|connect|interface ..." ;;
esac
