# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154  # names are shared among the files
#
# What the scripts share: where things are, how a step is reported, locks.
# Sourced, never run.

set -euo pipefail
umask 022

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# Which QEMU: a folder of patches/. Another than the usual one, and programs with
# the address and undefined behaviour sanitizers in them, have a build of their own,
# which what is run from here finds by DESKCAST_BUILD.
qemu_series=${QEMU_SERIES:-10.0}
sanitize=${SANITIZE:+yes}
build=$top/build
[ "$qemu_series" = 10.0 ] || build=$build/$qemu_series
[ -z "$sanitize" ] || build=$build/sanitized
[ "$build" = "$top/build" ] || export DESKCAST_BUILD=${DESKCAST_BUILD:-$build}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/deskcast
logs=$build/logs
# Of sanitizers: each user that a program may run as writes there
reports=$logs/reports

# The distribution's own Python, whatever a version manager put first on PATH:
# QEMU's build looks for meson among this interpreter's packages.
python=/usr/bin/python3
# Messages of the tools are matched in places, and sort order goes into hashes.
export LC_ALL=C.UTF-8
# PYTHONPATH of a caller would decide which meson QEMU's configure finds.
unset PYTHONPATH PYTHONHOME

say() { printf '%s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    [ $# = 0 ] || printf '    %s\n' "$@" >&2
    exit 1
}

# step TEXT: begin a step; done_step [TEXT]: say how long it took.
step() {
    step_name=$1
    step_began=$EPOCHREALTIME
    printf '==> %s\n' "$step_name"
}

seconds_since() {
    local now=$EPOCHREALTIME
    local us=$((${now/./} - ${1/./}))
    printf '%d.%d' $((us / 1000000)) $((us % 1000000 / 100000))
}

done_step() {
    printf '    %s: %s s\n' "${1:-done}" "$(seconds_since "$step_began")"
}

# logged NAME CMD...: run CMD quietly, keep its output, show the end on failure.
logged() {
    local log=$logs/$1.log status=0
    shift
    mkdir -p "$logs"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ $status = 0 ] && return
    tail -n 40 "$log" >&2
    die "'$1' failed with status $status" "whole log: $log"
}

# Root does what needs root; sudo may ask for a password, nothing else asks.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root to run: $*" "run as root, or install sudo"
    fi
}

# lock FILE TEXT: hold FILE until this process ends; TEXT says what is waited for.
# Only the outermost script of a call tree locks: the rest inherit the claim.
lock() {
    local var=DESKCAST_LOCK_${1//[^a-zA-Z0-9]/_}
    [ -z "${!var:-}" ] || return 0
    mkdir -p "$(dirname "$1")"
    exec {lock_fd}>"$1"
    if ! flock -n "$lock_fd"; then
        note "waiting for another $2"
        flock "$lock_fd"
    fi
    export "$var=$$"
}

# hash of stdin, short enough to read in a listing
hash_of() { sha256sum | cut -c1-16; }

# Objects are shared between checkouts: paths inside one are made relative.
use_ccache() {
    export CCACHE_DIR=$cache/ccache CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1
    export CCACHE_COMPILERCHECK=content CCACHE_MAXSIZE=5G
    export CCACHE_SLOPPINESS=time_macros,include_file_mtime,include_file_ctime
    mkdir -p "$CCACHE_DIR"
}
