#!/usr/bin/env bash
# Two networks that share only a router. Runs in a network and mount namespace of its own, so nothing is left behind:
#   unshare --net --mount --pid --fork --kill-child two_networks.sh DISTMESH WORK PROJECT [UNPRIVILEGED…]
# Leaves WORK/wire.pcap, WORK/worker.log and the exit code of the build. UNPRIVILEGED is put before the worker, whose
# distccd must not be root.
set -euo pipefail
distmesh=$1 work=$2 project=$3
shift 3

mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1
for side in 1 2; do
    ip netns add "side$side"
    ip link add "to$side" type veth peer name eth0 netns "side$side"
    ip address add "10.77.$side.1/24" dev "to$side"
    ip link set "to$side" up
    ip -n "side$side" address add "10.77.$side.2/24" dev eth0
    ip -n "side$side" link set lo up
    ip -n "side$side" link set eth0 up
    ip -n "side$side" route add default via "10.77.$side.1"
done

tcpdump -Z root -i to2 -U -w "$work/wire.pcap" 2>"$work/tcpdump.log" &
until grep -q 'listening on' "$work/tcpdump.log"; do sleep 0.05; done

common=(--rendezvous "dir:$work/rendezvous" --secret-file "$work/key" --stun none)
DISTMESH_RUNTIME_DIR=$work/w ip netns exec side2 "$@" "$distmesh" worker "${common[@]}" --name far --slots 4 \
    >"$work/worker.log" 2>&1 &
worker=$!

code=0
(cd "$project" && DISTMESH_RUNTIME_DIR=$work/p ip netns exec side1 "$distmesh" build --no-adapt "${common[@]}" \
    --require-workers 1 --wait 30s --report "$work/report" -- make -j) || code=$?
kill "$worker"
wait "$worker" || true
sleep 0.2
exit "$code"
