# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154  # names are shared among the files
#
# Running ninja, and how far it is. Sourced after lib.sh; $jobs is set.

# A terminal sees ninja's own status line; a pipe gets a line per tenth.
progress() {
    local line tenth=0 now
    while IFS= read -r line; do
        if [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]]; then
            now=$((BASH_REMATCH[1] * 10 / BASH_REMATCH[2]))
            [ $now -gt $tenth ] || continue
            tenth=$now
            printf '    %d of %d, %s s\n' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" \
                "$(seconds_since "$step_began")"
        else
            printf '    %s\n' "$line"
        fi
    done
}

# run_ninja DIR LOG TARGET...
run_ninja() {
    local dir=$1 log=$logs/$2.log
    shift 2
    mkdir -p "$logs"
    if [ -t 1 ]; then
        ninja -C "$dir" -j "$jobs" "$@"
    else
        ninja -C "$dir" -j "$jobs" "$@" 2>&1 | tee "$log" |
            sed -u -e '/^ninja: Entering/d' -e '/^ninja: no work/d' | progress
    fi
}
