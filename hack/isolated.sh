#!/bin/sh
# Runs a command in network and mount namespaces of its own, so that tests which change routes, filters and mounts
# cannot touch the machine's: sh hack/isolated.sh vitest run --project node
# The machine's own namespaces are named in the environment: the tests refuse to start in those.
set -eu
WEFT_MACHINE_NET=$(readlink /proc/self/ns/net)
WEFT_MACHINE_MNT=$(readlink /proc/self/ns/mnt)
export WEFT_MACHINE_NET WEFT_MACHINE_MNT
# A new namespace's loopback is down.
exec unshare --net --mount --propagation private -- sh -euc 'ip link set lo up; exec "$@"' sh "$@"
