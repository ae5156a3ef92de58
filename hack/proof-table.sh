#!/usr/bin/env bash
# Puts the figures that `make proof` has left in a directory into the table of docs/guarantees.md.
set -euo pipefail
figures=$1
page=docs/guarantees.md
row() { [ ! -f "$figures/$2" ] || printf '| %s | `%s` | %s |\n' "$1" "$3" "$(cat "$figures/$2")"; }
table=$(
    printf '| What | Command | Figures |\n| --- | --- | --- |\n'
    row 'SIGKILL at every effect' crash-points 'make crashpoints'
    row 'SIGSTOP of the leader at every effect, woken when another leads' takeovers 'make takeovers'
    row 'every Kubernetes fault at every effect' faults-of-the-Kubernetes-API 'make kubernetes-faults'
    row 'definitions applied anew at every effect' definitions-applied-anew 'make kubernetes-faults'
    row 'every remote fault at every call' remote-faults 'make remote-faults'
    row 'pairs of remote faults' remote-fault-pairs 'make remote-faults'
    row 'lost creates that looks do not show' hidden-creates 'make remote-faults'
    row 'refused at every call' remote-refused 'make remote-faults'
    row 'random lives' sequences 'make sequences'
    row 'random lives with two operators' schedules 'make schedules'
    row 'model states' model 'make model'
    row 'values made from the schema' schema-values 'make remote-faults'
    [ ! -f "$figures/leak-searches" ] || printf '| leaks, each half of a key and the token in eight forms in twelve places | all of the above | %s searches: 0 found |\n' \
        "$(wc -l < "$figures/leak-searches")"
    row 'seeded bugs' seeded-bugs 'make bugs'
)
awk -v table="$table" '
    /<!-- proof -->/ { print; print table; skip = 1 }
    /<!-- end of proof -->/ { skip = 0 }
    !skip && !/<!-- proof -->/ { print }
' "$page" > "$page.new"
mv "$page.new" "$page"
