#!/usr/bin/env bash
# Counts the instructions of hot operations under callgrind and compares them with instructions.txt: fails where an operation
# takes more than 10 % above what is recorded, and says so where it takes 10 % less, so that the record follows.
#   check.sh [PROGRAM]            the built cistern-bench; default .build/release/cistern-bench
#   check.sh --record [PROGRAM]   writes instructions.txt anew
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
record=
if [[ ${1:-} == --record ]]; then
    record=1
    shift
fi
program=${1:-$here/../../.build/release/cistern-bench}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Valgrind cannot read the debug information of Swift's compiler.
strip --strip-debug -o "$work/program" "$program"
# A hash table's order must not differ from run to run.
SWIFT_DETERMINISTIC_HASHING=1 valgrind --tool=callgrind --toggle-collect=bench_counted --dump-after=bench_counted \
    --callgrind-out-file="$work/out" "$work/program" count --directory "$work/store" >"$work/names" 2>"$work/log" ||
    { tail -n 20 "$work/log"; exit 1; }

number=0
while read -r name operations; do
    number=$((number + 1))
    total=$(awk '/^(summary|totals):/ { print $2; exit }' "$work/out.$number")
    echo "$name $((total / operations))"
done <"$work/names" >"$work/measured"

if [[ -n $record ]]; then
    cp "$work/measured" "$here/instructions.txt"
    cat "$here/instructions.txt"
    exit
fi
awk '
    NR == FNR { recorded[$1] = $2; next }
    !($1 in recorded) { print $1 ": not recorded, now " $2; failed = 1; next }
    {
        change = 100 * ($2 - recorded[$1]) / recorded[$1]
        verdict = change > 10 ? "MORE than recorded" : change < -10 ? "less: record it (check.sh --record)" : "as recorded"
        printf "%-14s %8d instructions, recorded %8d, %+.1f %%: %s\n", $1, $2, recorded[$1], change, verdict
        if (change > 10) failed = 1
    }
    END { exit failed }' "$here/instructions.txt" "$work/measured"
