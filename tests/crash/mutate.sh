# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
#
# Sourced after lib.sh by tests that break the driver on purpose, one rule at a
# time, and see that a test fails: one that still passes does not test that rule.
# The sources and the build are left alone: one changed file is compiled aside
# and linked in place of its own object.

scratch=$TMPDIR
number=0
failed=0
noticed=0
# Of these, by a hang: the test did end, and could not say what was wrong
hung=0
# Numbers of those to make, between spaces; empty: all
wanted=

# Set: only whether each EXPRESSION changes its FILE, without a build
patterns=${MUTATE_PATTERNS:-}

# change FILE EXPRESSION - FILE, broken, as $scratch/mutant.c; false if it is as before
change() {
    perl -0pe "$2" "$1" >"$scratch/mutant.c" && ! cmp -s "$1" "$scratch/mutant.c"
}

# target PROGRAM - what ninja calls it: a test, or one of QEMU's
target() {
    case $1 in
    qemu-* | */*) echo "$1" ;;
    *) echo "tests/crash/$1" ;;
    esac
}

# command_for PROGRAM FILE - prints how ninja compiles FILE for it
command_for() {
    ninja -C "$build" -t commands "$(target "$1")" | grep -- " -c [^ ]*$2\$"
}

# link_command PROGRAM - prints how ninja links it, without a response file
link_command() {
    ninja -C "$build" -t compdb -x c_LINKER c_LINKER_RSP | /usr/bin/python3 -c '
import json, sys
print(*(e["command"] for e in json.load(sys.stdin) if e["output"] == sys.argv[1]))' "$(target "$1")"
}

# link_with PROGRAM FILE [OUTPUT] - links a program with $scratch/mutant.o as
# FILE's object
link_with() {
    local object=${2//\//_}.o
    (cd "$build" && link_command "$1" |
        sed "s# -o [^ ]*# -o ${3:-$scratch/mutant}#; s# [^ ]*/$object # $scratch/mutant.o #" |
        bash)
}

# compile_mutant PROGRAM FILE EXPRESSION - false if EXPRESSION changes nothing
compile_mutant() {
    local command source
    command=$(command_for "$1" "$2") || return 1
    source=$(cd "$build" && realpath "${command##* -c }")
    change "$source" "$3" || return 1
    (cd "$build" && sed "s# -o [^ ]*# -o $scratch/mutant.o#; s# -MF [^ ]*# -MF /dev/null#
        s# -c [^ ]*\$# -iquote $(dirname "$source") -c $scratch/mutant.c#" <<<"$command" | bash)
}

# is_wanted - counts the mutations; false if this one is not to be made
is_wanted() {
    number=$((number + 1))
    [[ -z ${wanted// /} || $wanted = *" $number "* ]]
}

# source_of FILE - one of ours, or else of QEMU's
source_of() {
    if [ -f "$top/$1" ]; then echo "$top/$1"; else echo "${DESKCAST_SRC:-$top/build/src}/$1"; fi
}

# only_pattern RULE FILE EXPRESSION - true if no more than that is asked for.
# QEMU's sources need not be there.
only_pattern() {
    local source
    [ -n "$patterns" ] || return 1
    source=$(source_of "$2")
    if [ -f "$source" ] && ! change "$source" "$3"; then
        echo "mutation $number: $1: changes nothing in $2"
        failed=1
    fi
}

cannot_be_made() {
    echo "not ok - mutation $number: $1: cannot be made"
    failed=1
}

# tell RULE TEST STATUS - of TEST, which has written to $scratch/out
tell() {
    if [ "$3" -ne 1 ] || ! grep -q '^not ok' "$scratch/out"; then
        echo "not ok - mutation $number: $1: not noticed by the $2 test, which ends with $3"
        tail -5 "$scratch/out" | sed 's/^/# /'
        failed=1
        return
    fi
    noticed=$((noticed + 1))
    if grep -q '^not ok.* a life hangs' "$scratch/out"; then
        hung=$((hung + 1))
        echo "ok - mutation $number: $1: noticed by the $2 test, which hangs"
    else
        echo "ok - mutation $number: $1: noticed by the $2 test"
        sed -n 's/^not ok \([0-9]* \)\?- /# found: /p' "$scratch/out" | tail -1
    fi
}

# tell_all - at the end
tell_all() {
    [ -n "$patterns" ] || echo "# $noticed noticed, $hung of them by a hang"
}

# mutate RULE PROGRAM FILE EXPRESSION [ARG...] - what is broken; the program
# that must fail, with ARGs; and how to break it
mutate() {
    local rule=$1 program=$2 file=$3 expression=$4 status
    shift 4
    is_wanted || return
    ! only_pattern "$rule" "$file" "$expression" || return
    if ! compile_mutant "$program" "$file" "$expression" || ! link_with "$program" "$file"; then
        cannot_be_made "$rule"
        return
    fi
    timeout 900 "$scratch/mutant" "$@" >"$scratch/out" 2>&1
    status=$?
    tell "$rule" "${program#*-}" "$status"
}

# Unit tests: the pure files are compiled without QEMU, as by tests/unit/coverage

pure="block/pvs/journal-format block/pvs/journal-index block/pvs/journal-scan block/pvs/label
      block/vdisk/header"

# compile_pure SOURCE OBJECT
compile_pure() {
    local flags
    read -ra flags <<<"$(pkg-config --cflags glib-2.0)"
    gcc "${flags[@]}" -DVDISK_STANDALONE -D_GNU_SOURCE "-I$top" "-I$top/tests/unit" \
        -c "$1" -o "$2"
}

# link_unit NAME FILE - the program test-NAME, with $scratch/mutant.c for FILE
link_unit() {
    local objects=$scratch/unit name libs
    read -ra libs <<<"$(pkg-config --libs glib-2.0)"
    mkdir -p "$objects"
    for name in $pure; do
        [ -f "$objects/${name##*/}.o" ] ||
            compile_pure "$top/$name.c" "$objects/${name##*/}.o" || return 1
    done
    [ -f "$objects/test-$1.o" ] ||
        compile_pure "$top/tests/unit/test-$1.c" "$objects/test-$1.o" || return 1
    name=$(basename "$2" .c)
    compile_pure "$scratch/mutant.c" "$scratch/mutant.o" || return 1
    find "$objects" -name '*.o' ! -name 'test-*' ! -name "$name.o" -print0 |
        xargs -0 gcc -o "$scratch/mutant" "$objects/test-$1.o" "$scratch/mutant.o" -lcunit \
            "${libs[@]}"
}

# mutate_unit RULE NAME FILE EXPRESSION - a pure file, and test-NAME of tests/unit
mutate_unit() {
    local rule=$1 name=$2 file=$3 expression=$4 status
    is_wanted || return
    ! only_pattern "$rule" "$file" "$expression" || return
    if ! change "$top/$file" "$expression" || ! link_unit "$name" "$file"; then
        cannot_be_made "$rule"
        return
    fi
    timeout 60 "$scratch/mutant" >"$scratch/log" 2>&1
    status=$?
    cp "$scratch/log" "$scratch/out"
    if [ "$status" != 0 ] && [ "$status" != 124 ]; then
        echo "not ok - $(grep -E -m 1 '^ +1\. ' "$scratch/log")" >>"$scratch/out"
        status=1
    fi
    tell "$rule" "unit ($name)" "$status"
}

# Tests that start QEMU's programs: a build directory with one that is broken

# mutated_tree PROGRAM - the others are links to those of the build
mutated_tree() {
    local tree=$scratch/build/qemu folder
    folder=$(dirname "$1")
    rm -rf "$scratch/build"
    mkdir -p "$tree/$folder"
    ln -s "$top/build/deskcast" "$scratch/build/deskcast"
    find "$build" -mindepth 1 -maxdepth 1 ! -name "$folder" -exec ln -s -t "$tree" {} +
    if [ "$folder" != . ]; then
        find "$build/$folder" -mindepth 1 -maxdepth 1 -exec ln -s -t "$tree/$folder" {} +
    fi
    rm -f "$tree/$1"
}

# mutate_tree RULE PROGRAM FILE EXPRESSION - true if a test is to be run with it
mutate_tree() {
    is_wanted || return 1
    ! only_pattern "$1" "$3" "$4" || return 1
    mutated_tree "$2"
    if ! ninja -C "$build" "$2" >&2 || ! compile_mutant "$2" "$3" "$4" ||
        ! link_with "$2" "$3" "$scratch/build/qemu/$2"; then
        cannot_be_made "$1"
        return 1
    fi
}

# mutate_stores RULE PROGRAM FILE EXPRESSION REGEX - tests of tests/stores
mutate_stores() {
    local status
    mutate_tree "$1" "$2" "$3" "$4" || return
    DESKCAST_BUILD=$scratch/build timeout 600 "$top/tests/stores/run" --long --count 20 \
        --only "$5" >"$scratch/out" 2>&1 </dev/null
    status=$?
    tell "$1" stores "$status"
}

# mutate_iotest RULE FILE EXPRESSION TEST
mutate_iotest() {
    local status
    mutate_tree "$1" qemu-system-x86_64 "$2" "$3" || return
    QEMU_PROG=$scratch/build/qemu/qemu-system-x86_64 timeout 600 "$top/tests/iotests/run" "$4" \
        >"$scratch/out" 2>&1 </dev/null
    status=$?
    tell "$1" "$4" "$status"
}
