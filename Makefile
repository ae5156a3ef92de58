# The two commands a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
# End-to-end tests mostly wait: more of them than there are cores can run at once.
E2E_THREADS ?= 8

.PHONY: help demo test unit e2e check generate tools deny chart-lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

test: check unit e2e ## everything: checks, unit tests, tests on a real control plane

demo: tools ## the main job, shown on an embedded control plane and a simulated Toolzz
	@$(CARGO) run --quiet -p demo

tools: ## build the control plane's programs (once; about ten minutes on two cores)
	@$(CARGO) build --workspace --all-targets
	@$(CARGO) run --quiet -p test-controlplane -- build

unit: ## tests that need no control plane
	$(CARGO) test --workspace --exclude test-controlplane --lib --bins --test remote
	$(CARGO) test --doc -p toolzz-operator

e2e: tools ## tests on a real control plane
	$(CARGO) test -p test-controlplane
	$(CARGO) test --test e2e -- --test-threads=$(E2E_THREADS)

check: ## format, lints, licences, generated files, chart
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(MAKE) --no-print-directory generated deny chart-lint

generate: ## write the generated files
	$(CARGO) run --quiet -- crds --dir crds
	$(CARGO) run --quiet -- crds --dir charts/toolzz-operator/files/crds

.PHONY: generated
generated: ## the generated files are up to date
	$(CARGO) run --quiet -- crds --dir crds --check
	$(CARGO) run --quiet -- crds --dir charts/toolzz-operator/files/crds --check
