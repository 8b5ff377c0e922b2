# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154  # names are shared among the files
#
# The overlay: what the series of patches for this QEMU and patches/manifest
# make of a pristine QEMU tree. Sourced after lib.sh.
#
#   base       the pristine tree, never written to
#   src        build/src, the tree that is compiled: base + patches + new files
#   state      what apply last wrote into src: lines "sha256  path"; a file
#              that differs from it has been edited there by a developer

patches=$top/patches/$qemu_series
[ -f "$patches/series" ] ||
    die "there are no patches for QEMU $qemu_series" \
        "QEMU_SERIES is one of: $(cd "$top/patches" && echo */ | tr -d /)"
src=$build/src
state=$build/.overlay/state
state_base=$build/.overlay/base

# Lines of a list without comments, blanks and trailing space.
list_lines() { [ ! -f "$1" ] || sed -e 's/#.*//' -e 's/[[:space:]]*$//' "$1" | grep . || true; }

series() { list_lines "$patches/series"; }

# Paths a patch edits, relative to the tree.
patch_files() { sed -n 's,^+++ b/\([^[:space:]]*\).*,\1,p' "$patches/$1"; }

all_patch_files() {
    local p
    for p in $(series); do
        [ -f "$patches/$p" ] || die "series names '$p', which is not in $patches"
        patch_files "$p"
    done | sort -u
}

# New files, expanded: a line of the manifest is a file, a directory with a
# trailing slash, or a pattern.
new_files() {
    local line path found
    list_lines "$top/patches/manifest" | while read -r line; do
        found=
        # shellcheck disable=SC2231  # patterns are meant to expand
        for path in $top/${line%/}; do
            [ -e "$path" ] || continue
            found=1
            (cd "$top" && find "${path#"$top"/}" -type f ! -name '*~' ! -name '.*.sw?' \
                               ! -name '*.pyc' ! -name '*.rej' ! -name '*.orig')
        done
        [ -n "$found" ] || die "patches/manifest: nothing is called '$line'"
    done | sort -u
}

# copy_from TREE DEST: copy the files named on stdin.
copy_from() { rsync -a --files-from=- "$1/" "$2/"; }

# run_patch DIR PATCH: no fuzz, as a hunk that fits only roughly may land in the
# wrong place. A header that has no diff yet is a patch as well.
run_patch() {
    [ -n "$(patch_files "$2")" ] || return 0
    patch -d "$1" -p1 --forward --fuzz=0 --no-backup-if-mismatch -i "$patches/$2"
}

# Of patched files on stdin those that are ours: a series may change what this QEMU
# wants otherwise.
own_files() {
    local f
    while read -r f; do
        [ -e "$base/$f" ] || printf '%s\n' "$f"
    done
}

# apply_series DIR [LOG]: DIR gets the patched files, all else is left out.
apply_series() {
    local p out log=${2:-/dev/null}
    all_patch_files | own_files >"$1.own"
    all_patch_files | grep -vxFf "$1.own" | copy_from "$base" "$1"
    copy_from "$top" "$1" <"$1.own"
    for p in $(series); do
        out=$(run_patch "$1" "$p" 2>&1) ||
            die "patch '$p' does not apply to QEMU $(cat "$base/VERSION")" "$out"
        [ -z "$out" ] || printf '%s\n' "$out" | sed "s|^|$p: |" >>"$log"
    done
}

# sums DIR: "sha256  path" of the files named on stdin that exist in DIR.
sums() { (cd "$1" && tr '\n' '\0' | xargs -0 -r sha256sum 2>/dev/null) || true; }

# Paths of src that differ from what apply wrote there.
edited() {
    [ -f "$state" ] && [ -d "$src" ] || return 0
    cut -c67- "$state" | sums "$src" | sort | comm -13 - <(sort "$state") | cut -c67-
}

# The tree the overlay goes on, and a name for its content.
find_base() {
    base=$("$top/scripts/fetch-qemu")
    case $base in
    "$cache"/*) base_id="$base $(cat "$base.stamp")" ;;
    *) base_id="$base $(cd "$base" && find . -name .git -prune -o -type f -printf '%P %s %T@\n' |
                        sort | hash_of)" ;;
    esac
}
