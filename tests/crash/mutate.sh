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
# Numbers of those to make, between spaces; empty: all
wanted=

# Set: only whether each EXPRESSION changes its FILE, without a build
patterns=${MUTATE_PATTERNS:-}

# change FILE EXPRESSION - FILE, broken, as $scratch/mutant.c; false if it is as before
change() {
    perl -0pe "$2" "$1" >"$scratch/mutant.c" && ! cmp -s "$1" "$scratch/mutant.c"
}

# command_for PROGRAM FILE - prints how ninja compiles FILE for it
command_for() {
    ninja -C "$build" -t commands "tests/crash/$1" | grep -- " -c [^ ]*$2\$"
}

# link_with PROGRAM FILE - links a program with $scratch/mutant.o as FILE's object
link_with() {
    local object=${2//\//_}.o
    (cd "$build" && ninja -t commands "tests/crash/$1" | tail -1 |
        sed "s# -o [^ ]*# -o $scratch/mutant#; s# [^ ]*/$object # $scratch/mutant.o #" |
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

# mutate RULE PROGRAM FILE EXPRESSION [ARG...] - what is broken; the program
# that must fail, with ARGs; and how to break it
mutate() {
    local rule=$1 program=$2 file=$3 expression=$4
    shift 4
    number=$((number + 1))
    [[ -z ${wanted// /} || $wanted = *" $number "* ]] || return
    if [ -n "$patterns" ]; then
        if ! change "$top/$file" "$expression"; then
            echo "mutation $number: $rule: changes nothing in $file"
            failed=1
        fi
        return
    fi
    if ! compile_mutant "$program" "$file" "$expression" || ! link_with "$program" "$file"; then
        echo "not ok - mutation $number: $rule: cannot be made"
        failed=1
        return
    fi
    timeout 120 "$scratch/mutant" "$@" >"$scratch/out" 2>&1
    if [ $? -eq 1 ] && grep -q '^not ok' "$scratch/out"; then
        echo "ok - mutation $number: $rule: noticed by the ${program#*-} test"
        sed 's/^not ok - /found: /; s/^/# /' "$scratch/out" | tail -1
    else
        echo "not ok - mutation $number: $rule: not noticed by the ${program#*-} test"
        tail -5 "$scratch/out" | sed 's/^/# /'
        failed=1
    fi
}
