# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154  # names are shared among the files
#
# scripts/overlay refresh: edits made in build/src go back to where they came
# from. Sourced by scripts/overlay.
#
# A file that several patches touch gets its edits in the last of them.

# Everything of a patch before its first diff: the DEP-3 header.
patch_header() { sed -e '/^diff /,$d' -e '/^--- a\//,$d' "$patches/$1"; }

# Files of a patch, with those that refresh was asked to take into it.
touched_by() {
    patch_files "$1"
    [ "$1" != "$into" ] || cat "$work/extra"
}

last_toucher() {
    local p last=
    for p in $(series); do
        ! touched_by "$p" | grep -xF "$1" >/dev/null || last=$p
    done
    printf '%s\n' "$last"
}

# diff_file FILE: from $work/old to $work/next, the same on every machine
diff_file() {
    local status=0
    (cd "$work" && GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
        git diff --no-index --no-color --no-ext-diff -- "old/$1" "next/$1") >"$work/diff" || status=$?
    [ $status -le 1 ] || die "diff of $1 failed"
    sed -e '/^index /d' -e "s,^diff --git .*,diff --git a/$1 b/$1," \
        -e "s,^--- a/old/.*,--- a/$1," -e "s,^+++ b/next/.*,+++ b/$1," "$work/diff"
}

# is_same FILE PATCH: one of another series may name other lines
is_same() {
    case $2 in
    */*) cmp -s <(sed 's/^@@ [^@]*@@.*/@@/' "$1") <(sed 's/^@@ [^@]*@@.*/@@/' "$patches/$2") ;;
    *) cmp -s "$1" "$patches/$2" ;;
    esac
}

# refresh_patch PATCH: called with $work/old holding what the patches before it
# make; leaves there what it makes itself.
refresh_patch() {
    local p=$1 f
    touched_by "$p" | sort -u >"$work/touched"
    rm -rf "$work/next"
    mkdir "$work/next"
    copy_from "$work/old" "$work/next" <"$work/touched"
    run_patch "$work/next" "$p" >/dev/null || die "patch '$p' does not apply any more"
    while read -r f; do
        [ "$(last_toucher "$f")" != "$p" ] || cp "$src/$f" "$work/next/$f"
    done <"$work/touched"
    patch_header "$p" >"$work/patch"
    while read -r f; do diff_file "$f"; done <"$work/touched" >>"$work/patch"
    is_same "$work/patch" "$p" || {
        case $p in
        */*) die "'$p' belongs to another series" "copy it to $patches and name it there" ;;
        esac
        cp "$work/patch" "$patches/$p"
        note "refreshed $p"
    }
    copy_from "$work/next" "$work/old" <"$work/touched"
}

# New files edited in build/src, copied back unless ours moved on meanwhile.
refresh_new_files() {
    local f sum
    while read -r f; do
        sum=$(awk -v f="$f" 'substr($0, 67) == f { print $1 }' "$state")
        if cmp -s "$src/$f" "$top/$f"; then
            :
        elif [ "$sum" = "$(sha256sum <"$top/$f" | cut -d' ' -f1)" ]; then
            cp "$src/$f" "$top/$f"
            note "took back $f"
        else
            die "'$f' was edited both here and in build/src: merge it by hand"
        fi
    done < <(edited | sort | comm -12 - "$work/new" | grep -vxFf "$work/own")
}

# Edits in files that no patch covers would be lost without a word.
report_strays() {
    local strays
    strays=$(rsync -rcni --delete --exclude=__pycache__ --exclude=/roms --exclude=/.git \
                   --exclude=/build --exclude=/.pc "$src/" "$base/" |
             sed -n -e 's/^[<>]f[^ ]* //p' -e 's/^\*deleting  *//p' | sort |
             comm -23 - <(sort "$work/new" "$work/patched"))
    [ -z "$strays" ] || {
        warn "in build/src these differ from QEMU's and belong to no patch:"
        printf '%s\n' "$strays" | sed 's/^/    /' >&2
        warn "take them in with: scripts/overlay refresh PATCH FILE..."
    }
}

# cmd_refresh [PATCH FILE...]
cmd_refresh() {
    local into=${1:-} p
    [ $# = 0 ] || shift
    printf '%s\n' "$@" | sed '/^$/d' >"$work/extra"
    lock "$build/.lock" "build in this checkout"
    find_base
    [ -d "$src" ] && [ -f "$state" ] || die "nothing to refresh from: run scripts/overlay apply"
    [ -z "$into" ] || series | grep -xF "$into" >/dev/null ||
        die "'$into' is not in $patches/series: write its header and list it there first"
    new_files >"$work/new"
    mkdir "$work/old"
    { all_patch_files; cat "$work/extra"; } | sort -u | own_files >"$work/own"
    { all_patch_files; cat "$work/extra"; } | sort -u | grep -vxFf "$work/own" |
        copy_from "$base" "$work/old"
    copy_from "$top" "$work/old" <"$work/own"
    for p in $(series); do refresh_patch "$p"; done
    refresh_new_files
    all_patch_files >"$work/patched"
    report_strays
    # The tree has not changed; what apply would write has: record it.
    mkdir "$work/tree"
    want "$work/tree"
    write_changes
}
