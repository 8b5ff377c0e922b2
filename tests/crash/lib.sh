# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034
#
# What the runners of tests/model, tests/race and tests/crash have in common.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# QEMU's build directory, or the one that has it
build=$(realpath -m "${DESKCAST_BUILD:-$top/build}")
[ ! -f "$build/qemu/build.ninja" ] || build=$build/qemu
# For pvs-kill: what its store is
kill_store=(--daemon "$build/storage-daemon/qemu-storage-daemon"
            --volatile "$(dirname "$build")/deskcast/tests/stores/volatile.so")
long=
[ "${1:-}" != --long ] || long=1

# Memory, if there is some: these tests are about content, not about a medium
if [ -n "${DESKCAST_SHM:-}" ]; then
    TMPDIR=$DESKCAST_SHM
elif [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then
    TMPDIR=/dev/shm
fi
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/deskcast-XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# build_program PROGRAM - as the sources are now
build_program() {
    [ -z "${MUTATE_PATTERNS:-}" ] || return 0
    ninja -C "$build" "tests/crash/$1" >&2
}

# run_program TIER PROGRAM [ARG...]
run_program() {
    local tier=$1 program=$2 status
    shift 2
    if ! build_program "$program"; then
        echo "not ok - $tier: $program does not build"
        return 1
    fi
    "$build/tests/crash/$program" "$@"
    status=$?
    # It says itself when something is wrong, unless it could not
    [ "$status" -le 1 ] || echo "not ok - $tier: $program $* ended with $status"
    return "$status"
}
