#!/usr/bin/env bash
# The main job on an embedded control plane and a simulated Toolzz. Started by `make demo`, which builds what it needs.
# Each step is the command a user would type, and its real output. On a terminal it stays up until Ctrl-C.
set -euo pipefail

bin=${BIN:?set by make}
namespace=demo
export TOOLZZ_SIMULATOR_TOKEN=demo-token
work=$(mktemp -d)
trap 'trap - EXIT; jobs -p | xargs -r kill 2>/dev/null || true; wait || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say() { printf '\n# %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
# Waits for the first line of a file that a program in the background writes.
first_line() {
  for _ in $(seq 600); do
    if [ -s "$1" ]; then head -n 1 "$1"; return; fi
    sleep 0.1
  done
  echo "no answer from $1" >&2
  return 1
}

say "Starting etcd, kube-apiserver, kube-controller-manager and the simulated Toolzz"
"$bin/controlplane" run >"$work/kubeconfig" 2>"$work/controlplane.log" &
"$bin/toolzz-simulator" >"$work/simulator" 2>"$work/simulator.log" &
KUBECONFIG=$(first_line "$work/kubeconfig")
TOOLZZ_API_URL=$(first_line "$work/simulator")
export KUBECONFIG TOOLZZ_API_URL
simulator=${TOOLZZ_API_URL%/api/v1}
kubectl=$("$bin/controlplane" path kubectl)
kubectl() { "$kubectl" "$@"; }

say "Installing the CustomResourceDefinition and starting the operator"
run kubectl apply --server-side -f crds
run kubectl wait --for=condition=Established --timeout=60s -f crds
run kubectl create namespace $namespace
run kubectl config set-context --current --namespace=$namespace
TOOLZZ_API_TOKEN=$TOOLZZ_SIMULATOR_TOKEN POD_NAMESPACE=$namespace \
  "$bin/toolzz-operator" run --http-addr 127.0.0.1:0 2>"$work/operator.log" &

say "Applying the examples: Secrets with keys, and the credentials that refer to them"
run kubectl apply -f examples
run kubectl wait --for=condition=Ready --timeout=60s toolzzcredentials --all
run kubectl get toolzzcredentials
run kubectl get --server "$simulator" --raw /_sim/table

say "Rotating a key: the virtual key stays, Toolzz has a new secretId"
before=$(kubectl get tzc openai -o 'jsonpath={.status.virtualKey} {.status.secretId}')
run kubectl patch secret openai --type merge -p '{"stringData":{"api-key":"sk-example-rotated"}}'
run kubectl wait --for=jsonpath='{.status.conditions[?(@.type=="Ready")].reason}'=Rotated --timeout=60s tzc/openai
after=$(kubectl get tzc openai -o 'jsonpath={.status.virtualKey} {.status.secretId}')
echo "before: virtualKey and secretId $before"
echo "after:  virtualKey and secretId $after"
run kubectl get --server "$simulator" --raw /_sim/table
# Each on its own line: the shell lets a failing part of `&&` pass.
[ "${before% *}" = "${after% *}" ]
[ "${before#* }" != "${after#* }" ]

say "Renaming"
run kubectl patch tzc openai --type merge -p '{"spec":{"name":"OpenAI Sales"}}'
run kubectl wait --for=jsonpath='{.status.conditions[?(@.type=="Ready")].reason}'=Updated --timeout=60s tzc/openai
run kubectl get events --sort-by=.metadata.creationTimestamp

say "Deleting: the credential is deactivated at Toolzz, which has no delete"
run kubectl delete tzc openai
run kubectl get --server "$simulator" --raw /_sim/table

if [ -t 0 ] && [ -t 1 ]; then
  say "It stays up until Ctrl-C. Play with it:"
  echo "export KUBECONFIG=$KUBECONFIG"
  echo "kubectl get --server $simulator --raw /_sim/table"
  echo "tail -f $work/operator.log"
  wait
fi
say "Done"
