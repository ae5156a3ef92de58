#!/usr/bin/env bash
# Shows everything with the large counts, and puts the figures into the table of docs/guarantees.md. Every figure is there, or
# nothing is written. The figures of each target are kept in hack/proof, with what they are of: what has been shown of the very
# same sources is not shown again, so a proof can be made in parts. Arguments: only these targets, without the table.
set -euo pipefail
# A proof is of the whole, with the seeds that are written down.
unset MAKEFLAGS MAKEOVERRIDES WORKLOADS ONLY SEED CASES TOOLZZ_ONLY
page=docs/guarantees.md
targets=(model fuzz sequences schedules crashpoints takeovers kubernetes-faults remote-faults bugs)
# What everything is built by and of.
build=(Cargo.lock Cargo.toml rust-toolchain.toml)
# What a target shows something of: the operator, what the target is made of, and how it is called.
sources() {
    # Its unit tests are no part of the operator.
    local no_unit_tests=(':(exclude,glob)src/**/'{tests.rs,tests/**,*_tests.rs})
    local room=("${build[@]}" src "${no_unit_tests[@]}" crds tests/{controlplane,kubeproxy,simulator})
    room+=(tests/e2e/{support,leaks}.rs)
    local runs=(tests/e2e/{runs,workloads,adoption}.rs)
    local target=$1
    case $target in
    # The planner rests on the resources' definitions and on nothing else.
    model) set -- "${build[@]}" src/lib.rs src/{api,plan} "${no_unit_tests[@]}" tests/model ;;
    fuzz) set -- "${build[@]}" src/lib.rs src/{api,plan,remote} ;;
    crashpoints | takeovers) set -- "${room[@]}" "${runs[@]}" tests/e2e/crashpoints.rs ;;
    kubernetes-faults) set -- "${room[@]}" "${runs[@]}" charts tests/e2e/{kubernetes_faults,chart}.rs ;;
    remote-faults) set -- "${room[@]}" charts tests/e2e/{remote_faults,remote_lives,connections,schema,chart,dice}.rs ;;
    sequences | schedules) set -- "${room[@]}" "${runs[@]}" tests/e2e/{sequences,lives,dice,leader}.rs ;;
    bugs) set -- "${build[@]}" src tests crds charts :!tests/bench ;;
    esac
    { git ls-files -s -- "$@"; sed -n "/^$target:/,/^$/p" Makefile; } | git hash-object --stdin
}
figures() { echo "hack/proof/$1"; }
is_shown() { [ "$(cat "$(figures "$1")/sources" 2>/dev/null)" = "$(sources "$1")" ]; }

git diff --quiet HEAD -- Makefile "${build[@]}" src tests crds charts || { echo "there are changes that are not committed: a proof is of a commit" >&2; exit 1; }
for target in "${@:-${targets[@]}}"; do
    if ! is_shown "$target"; then
        kept=$(figures "$target")
        mkdir -p "$kept"
        # Kills of seeded bugs are kept one by one, each with what it is of.
        find "$kept" -type f ! -name killed -delete
        TOOLZZ_PROOF="$PWD/$kept" make --no-print-directory "$target"
        sources "$target" > "$kept/sources"
    fi
done
[ $# = 0 ] || exit 0

all=()
for target in "${targets[@]}"; do all+=("$(figures "$target")"); done
row() {
    local figure
    figure="$(figures "$3")/$2"
    [ -s "$figure" ] || { echo "$figure is missing: make $3 did not leave its figures" >&2; exit 1; }
    printf '| %s | `make %s` | %s |\n' "$1" "$3" "$(cat "$figure")"
}
# The sum of the numbers before a word, over all figures that have it.
sum() { find "${all[@]}" -type f ! -name killed -exec cat {} + | grep -oE "[0-9]+ $1" | awk '{ all += $1 } END { print all }'; }
# What was searched for leaks: forms, times, found, place, of each process. No search is no figure.
searches() {
    find "${all[@]}" -name 'leaks-*' -exec cat {} + | awk -F '\t' '
        { forms = $1 > forms ? $1 : forms; times += $2; found += $3; places[$4] = 1 }
        END {
            if (!times) { print "nothing was searched for leaks" > "/dev/stderr"; exit 1 }
            printf "%d searches of %d places for %d forms: %d leaks", times, length(places), forms, found
        }'
}
leaks=$(searches)
duplicates=$(sum duplicates)
lost=$(sum lost)
stuck=$(sum stuck)
commit=$(git rev-parse --short HEAD)
table=$(
    printf 'Of commit `%s`. A run that ends otherwise than it should fails its command, and then nothing is written here;\n' "$commit"
    printf 'duplicates, lost ids and stuck resources are those of the commands that tell them apart.\n\n'
    printf '| What | Command | Figures |\n| --- | --- | --- |\n'
    row 'SIGKILL at every effect' crash-points crashpoints
    row 'SIGSTOP of the leader at every effect, woken when another leads' takeovers takeovers
    row 'every Kubernetes fault at every effect' faults-of-the-Kubernetes-API kubernetes-faults
    row 'every right taken away at every effect of a create, and given back' rights-withdrawn kubernetes-faults
    row 'definitions applied anew at every effect' definitions-applied-anew kubernetes-faults
    row 'the namespace deleted at every effect on it' namespaces-that-go kubernetes-faults
    row 'every remote fault at every call' remote-faults remote-faults
    row 'pairs of remote faults' remote-fault-pairs remote-faults
    row 'lost creates that looks do not show' hidden-creates remote-faults
    row 'refused at every call' remote-refused remote-faults
    row 'random lives' sequences sequences
    row 'schedules of two operators and one lease' schedules schedules
    row 'model states' model model
    row 'values made from the schema of credentials' schema-values remote-faults
    row 'values made from the schemas of connections' schema-connections remote-faults
    row 'random answers and records' fuzz fuzz
    printf '| leaks: key, token and installation key, whole and in halves | all of the above | %s |\n' "$leaks"
    row 'seeded bugs' seeded-bugs bugs
    printf '| all of it | `make proof` | %s duplicates, %s lost ids, %s, %s stuck resources |\n' \
        "$duplicates" "$lost" "${leaks##*: }" "$stuck"
)
hack/fill.sh "$page" proof <<< "$table"
