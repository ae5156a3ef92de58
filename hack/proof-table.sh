#!/usr/bin/env bash
# Puts the figures that `make proof` has left in a directory into the table of docs/guarantees.md. Every figure is there, or
# nothing is written.
set -euo pipefail
figures=$1
page=docs/guarantees.md
row() {
    [ -s "$figures/$2" ] || { echo "$figures/$2 is missing: $3 did not leave its figures" >&2; exit 1; }
    printf '| %s | `%s` | %s |\n' "$1" "$3" "$(cat "$figures/$2")"
}
# The sum of the numbers before a word, over all figures.
sum() { cat "$figures"/* | grep -oE "[0-9]+ $1" | awk '{ all += $1 } END { print all + 0 }'; }
# What was searched for leaks: forms, times, found, place, of each process.
searches() {
    awk -F '\t' '
        { forms = $1 > forms ? $1 : forms; times += $2; found += $3; places[$4] = 1 }
        END { printf "%d searches of %d places for %d forms: %d found", times, length(places), forms, found }
    ' "$figures"/leaks-*
}
searches > "$figures/leaks"
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
    row 'schedules of two operators and one lease' schedules 'make schedules'
    row 'model states' model 'make model'
    row 'values made from the schema of credentials' schema-values 'make remote-faults'
    row 'values made from the schemas of connections' schema-connections 'make remote-faults'
    row 'random answers and records' fuzz 'make fuzz'
    row 'leaks: key, token and installation key, whole and in halves' leaks 'all of the above'
    row 'seeded bugs' seeded-bugs 'make bugs'
    printf '| all of it | `make proof` | %s duplicates, %s lost ids, %s leaks, %s stuck resources |\n' \
        "$(sum duplicates)" "$(sum lost)" "$(sum found)" "$(sum stuck)"
)
awk -v table="$table" '
    /<!-- proof -->/ { print; print table; skip = 1 }
    /<!-- end of proof -->/ { skip = 0 }
    !skip && !/<!-- proof -->/ { print }
' "$page" > "$page.new"
mv "$page.new" "$page"
