# The two commands a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
# End-to-end tests mostly wait: more of them than there are cores can run at once.
TEST_THREADS ?= 8
# Tools belong to the user, not to a clone: a fresh one does not build them again.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/toolzz-operator
# What a control plane runs, of all the tools.
CONTROL_PLANE := etcd kube-apiserver kube-controller-manager kubectl helm
# Where a tool is.
TOOL := $(CARGO) run --quiet -p test-controlplane -- path
# Where Cargo builds.
TARGET = $$($(CARGO) metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
MDBOOK_VERSION := 0.5.4
MDBOOK := $(CACHE)/mdbook-$(MDBOOK_VERSION)/bin/mdbook
CYCLONEDX_VERSION := 0.5.9
CYCLONEDX := $(CACHE)/cargo-cyclonedx-$(CYCLONEDX_VERSION)/bin/cargo-cyclonedx

.PHONY: help demo test bench bench-docs sequences schedules crashpoints takeovers model kubernetes-faults remote-faults fuzz proof bugs tools check generate generated deny advisories chart-lint book image release

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

test: check ## everything: checks, unit tests, tests on a real control plane
	$(CARGO) test --workspace -- --test-threads=$(TEST_THREADS)

sequences: ## a thousand random lives; SEED=n begins elsewhere
	TOOLZZ_SEQUENCES=1000 TOOLZZ_SEED=$(or $(SEED),1) $(CARGO) test --test e2e -- --exact sequences::every_life_ends_in_agreement

remote-faults: ## every remote fault at every call, 400 pairs of them, and values made from the schema
	TOOLZZ_FAULT_PAIRS=400 TOOLZZ_SCHEMA_VALUES=1000 TOOLZZ_SEED=$(or $(SEED),1) $(CARGO) test --test e2e -- remote_faults schema

fuzz: SEED := $(or $(SEED),1)
fuzz: ## random answers of Toolzz and random records; SEED=random or a number, CASES=n
	seed=$(SEED); [ "$$seed" != random ] || seed=$$RANDOM$$RANDOM; echo "seed $$seed"; \
	TOOLZZ_FUZZ_SEED=$$seed PROPTEST_CASES=$(or $(CASES),20000) $(CARGO) test --lib -- wire::properties plan::ledger; \
	[ -z "$${TOOLZZ_PROOF:-}" ] || echo "$(or $(CASES),20000) cases of each of $$($(CARGO) test --lib -- --list wire::properties any_text_is_read | grep -c ': test$$') properties from seed $$seed" > "$$TOOLZZ_PROOF/fuzz"

proof: tools ## all of the above with the large counts, and the table in docs/guarantees.md (an hour and a half)
	hack/proof.sh

bugs: tools ## plant bugs, one at a time, and show that tests find them (about half an hour); ONLY=word for some
	$(CARGO) run --quiet -p seeded-bugs -- $(ONLY)

model: ## every order of events within bounds, over the production planner (minutes)
	$(CARGO) run --release --quiet -p model-check -- $(ONLY)

schedules: ## a thousand with two operators and one lease, which is lost again and again (half an hour); SEED=n begins elsewhere
	TOOLZZ_SCHEDULES=1000 TOOLZZ_SEED=$(or $(SEED),1) $(CARGO) test --test e2e two_operators

crashpoints: ## SIGKILL at every effect of every workload; WORKLOADS=Create,Delete: of some
	TOOLZZ_CRASHPOINTS=$(or $(WORKLOADS),all) $(CARGO) test --test e2e a_crash_at -- --nocapture

takeovers: ## SIGSTOP of the leader at every effect, woken when another leads; WORKLOADS as above
	TOOLZZ_TAKEOVERS=$(or $(WORKLOADS),all) $(CARGO) test --test e2e a_leader_stopped -- --nocapture

kubernetes-faults: ## every fault of the Kubernetes API at every effect there; WORKLOADS as above
	TOOLZZ_KUBERNETES_FAULTS=$(or $(WORKLOADS),all) $(CARGO) test --test e2e kubernetes_faults:: -- --nocapture

demo: ## the main job, shown on an embedded control plane and a simulated Toolzz
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet -p test-controlplane -- build $(CONTROL_PLANE)
	@BIN="$(TARGET)/debug" hack/demo.sh

bench: SIZES ?= 1000,10000
COMMA := ,
# An image is made where its size is wanted.
bench: $(if $(ONLY),$(if $(filter start,$(subst $(COMMA), ,$(ONLY))),image),image) ## measure the release build beside a bare loader: a table, and target/bench (about an hour); SIZES=1000,10000,100000 (hours), ONLY=cold,rest
	@# The operator alone first: built with the others, it would have their features too.
	$(CARGO) build --release --bin toolzz-operator
	$(CARGO) build --release -p test-controlplane -p bench --bins
	"$(TARGET)/release/controlplane" build $(CONTROL_PLANE)
	rm -rf "$(TARGET)/criterion/plan"
	CRITERION_HOME="$(TARGET)/criterion" $(CARGO) bench --quiet -p bench --bench plan
	"$(TARGET)/release/bench" --out "$(TARGET)/bench" --criterion "$(TARGET)/criterion" --sizes "$(SIZES)" --image "$(TARGET)/image.tar" $(if $(ONLY),--only "$(ONLY)")

bench-docs: ## put the table and the plot of the last whole `make bench` into docs/performance.md
	hack/fill.sh docs/performance.md bench < "$(TARGET)/bench/performance.md"
	cp "$(TARGET)/bench/performance.svg" docs/performance.svg

tools: ## build the control plane's programs and the checkers (once; a quarter of an hour on two cores)
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet -p test-controlplane -- build

check: tools ## format, lints, licences, generated files, chart, book
	$(CARGO) fmt --all --check
	@unformatted="$$(gofmt -l tests/controlplane/tools)"; test -z "$$unformatted" || { echo "not as gofmt writes it: $$unformatted"; exit 1; }
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(MAKE) --no-print-directory generated deny chart-lint book

generate: ## write the generated files
	$(CARGO) run --quiet -- crds --dir crds
	$(CARGO) run --quiet -- crds --dir charts/toolzz-operator/files/crds
	$(CARGO) run --quiet -- docs --dir docs
	"$$($(TOOL) helm-docs)" --chart-search-root charts --log-level warning

generated: ## are the generated files up to date?
	$(CARGO) run --quiet -- crds --dir crds --check
	$(CARGO) run --quiet -- crds --dir charts/toolzz-operator/files/crds --check
	$(CARGO) run --quiet -- docs --dir docs --check
	@"$$($(TOOL) helm-docs)" --chart-search-root charts --log-level warning --dry-run | diff -u charts/toolzz-operator/README.md - \
		|| { echo "charts/toolzz-operator/README.md is not up to date: run make generate"; exit 1; }

deny: $(CARGO_DENY) ## licences, sources and bans of the dependencies
	$(CARGO_DENY) --workspace check bans licenses sources

advisories: $(CARGO_DENY) ## known holes of the dependencies; needs the advisory database
	$(CARGO_DENY) --workspace check advisories

book: $(MDBOOK) ## the documentation as a book, in target/book
	@said="$$($(MDBOOK) build 2>&1)" || { echo "$$said"; exit 1; }; echo "$$said"; ! grep -qwE 'WARN|ERROR' <<< "$$said"

# What hack/image.sh needs.
IMAGE_TOOLS = UMOCI="$$($(TOOL) umoci)" ROOT_CERTIFICATES="$$($(TOOL) root-certificates)"

image: ## target/image.tar: an OCI image of the release binary, made and tried without a container engine
	$(CARGO) run --quiet -p test-controlplane -- build umoci root-certificates
	$(CARGO) build --release --locked --package toolzz-operator --bin toolzz-operator
	@$(IMAGE_TOOLS) hack/image.sh "$(TARGET)/release/toolzz-operator" "$(TARGET)/image.tar"

release: $(CYCLONEDX) ## dist/: the binary, built twice to the same bytes, an SBOM, its image, the chart, what built it, checksums; TAG=v1.2.3 must be the version
	$(CARGO) run --quiet -p test-controlplane -- build helm umoci root-certificates
	@# TAG comes by the environment: a name of a tag is no text for a shell.
	@$(IMAGE_TOOLS) PATH="$(dir $(CYCLONEDX)):$$PATH" HELM="$$($(TOOL) helm)" CARGO="$(CARGO)" hack/release.sh

$(CARGO_DENY): INSTALL := cargo-deny --version $(CARGO_DENY_VERSION)
$(MDBOOK): INSTALL := mdbook --version $(MDBOOK_VERSION) --no-default-features --features search
$(CYCLONEDX): INSTALL := cargo-cyclonedx --version $(CYCLONEDX_VERSION)
$(CARGO_DENY) $(MDBOOK) $(CYCLONEDX):
	@echo "building $(notdir $@) once; this takes some minutes"
	$(CARGO) install $(INSTALL) --locked --root $(patsubst %/bin/,%,$(dir $@))

chart-lint: ## does the chart render with each of its sets of values, and as its tests say? Is each value documented, and no hook in it but the test? Do its alerts fire when they should?
	@helm="$$($(TOOL) helm)"; \
	for values in charts/toolzz-operator/ci/*.yaml; do "$$helm" lint --strict --quiet charts/toolzz-operator -f "$$values"; done
	@# Of a value without a comment helm-docs leaves the last cell empty. Its own strict mode does not know this kind of comment.
	@! sed -n '/^## Values/,$$p' charts/toolzz-operator/README.md | grep -E '\| +\|$$' || { echo "values without a comment"; exit 1; }
	@# As rendered, however a template says it, and as written, for what none of these values asks for.
	@helm="$$($(TOOL) helm)"; objects="$$(cat charts/toolzz-operator/templates/*)"; \
	for values in charts/toolzz-operator/ci/*.yaml; do objects+=$$'\n'"$$("$$helm" template op charts/toolzz-operator -f "$$values")"; done; \
	! grep -E "helm.sh/hook[\"']?[[:space:]]*:" <<< "$$objects" | grep -vE ': test$$' || { echo "a hook that is no test: GitOps tools run those at other times, or never"; exit 1; }
	@# On a copy: a run that fails empties the snapshots, and the next one would take whatever it finds for right.
	@# To change them on purpose: helm-unittest --update-snapshot charts/toolzz-operator
	@copy="$$(mktemp -d)"; trap 'rm -rf "$$copy"' EXIT; cp -r charts/toolzz-operator "$$copy"; \
	"$$($(TOOL) helm-unittest)" --strict "$$copy/toolzz-operator"; \
	diff -ru charts/toolzz-operator/tests/__snapshot__ "$$copy/toolzz-operator/tests/__snapshot__"
	@promtool="$$($(TOOL) promtool)"; \
	"$$promtool" check rules --lint=all --lint-fatal charts/toolzz-operator/files/alerts.yaml; \
	"$$promtool" test rules charts/toolzz-operator/tests/alerts.yaml
	@for alert in $$(sed -n 's/^ *- alert: //p' charts/toolzz-operator/files/alerts.yaml); do \
	  grep -q "alertname=\"$$alert\"" charts/toolzz-operator/tests/alerts.yaml || { echo "$$alert has no test"; exit 1; }; \
	done
