# The few commands of this project. `make help` lists them.
# One profile (release) and one RocksDB library serve all of them: see scripts/rocksdb.sh.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export ROCKSDB_LIB_DIR := $(shell scripts/rocksdb.sh --print)
export ROCKSDB_STATIC := 1

CARGO ?= cargo
# Extra arguments: `make demo ARGS="--quick --seed 7"`, `make test ARGS="-p group-log"`.
ARGS ?=
# What the demos need. Dependencies are compiled again where another choice of packages asks for other features of them: who has built
# everything already says `make demo DEMO_PACKAGES="--workspace --bins"`.
DEMO_PACKAGES ?= -p ordering-service -p mls-gateway -p concordat-demo
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)

.PHONY: help
help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ready ## Real processes, real MLS groups: a leader's crash, then a network that splits in three and heals; prove the result
	$(CARGO) build --release --locked $(DEMO_PACKAGES)
	$(TARGET_DIR)/release/concordat-demo $(ARGS)

.PHONY: bench
bench: ready ## Measure against etcd and JetStream on this machine; ARGS="peers --quick", ARGS=scale, ARGS=--help
	$(CARGO) build --release --locked -p ordering-service -p mls-gateway -p concordat-bench
	bench/peers/fetch.sh
	$(TARGET_DIR)/release/bench $(or $(ARGS),peers)

.PHONY: demo-mesh
demo-mesh: ready ## Seven gateways whose links come and go, and the proof of what twelve members of a DGroup got; ARGS=--quick
	$(CARGO) build --release --locked $(DEMO_PACKAGES)
	$(TARGET_DIR)/release/concordat-demo-mesh $(ARGS)

.PHONY: demo-netsplit
demo-netsplit: ready ## Only the second act of the demo: three sites, whose network splits and heals
	$(CARGO) build --release --locked $(DEMO_PACKAGES)
	$(TARGET_DIR)/release/concordat-demo --act two $(ARGS)

.PHONY: build
build: ready ## Build everything, optimized
	$(CARGO) build --release --locked --workspace $(ARGS)

.PHONY: test
test: ready ## Run all tests, those on real processes included
	$(CARGO) build --release --locked --workspace --bins
	$(CARGO) test --release --locked $(if $(findstring -p ,$(ARGS)),,--workspace) $(ARGS)
	$(if $(findstring -p ,$(ARGS)),,helm/test.sh)

.PHONY: search
search: ready ## Search the fork rules for about half an hour instead of a minute: 2 million worlds, 100000 random walks of each kind; WORLDS=, WALKS=, SEED=
	CONCORDAT_WORLDS=$(or $(WORLDS),2000000) CONCORDAT_WALKS=$(or $(WALKS),100000) $(if $(SEED),CONCORDAT_SEED=$(SEED)) \
		$(CARGO) test --release --locked -p group-log --test forks search -- --nocapture

.PHONY: chart
chart: ready ## Check the Helm chart, its alerts and dashboards, and the Dockerfile; installs the tools for it
	$(CARGO) build --release --locked --workspace --bins
	@scripts/chart-tools.sh >/dev/null
	helm/test.sh --all

.PHONY: lint
lint: ready ## Check with clippy; warnings are errors
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check: ## Check the format without changing anything
	$(CARGO) fmt --all --check

.PHONY: doctor
doctor: ## Install or name what this machine lacks for building
	@scripts/doctor.sh

.PHONY: rocksdb
rocksdb: ## Compile RocksDB once for this machine, if that has not been done
	@scripts/rocksdb.sh >/dev/null

# What everything that compiles needs.
.PHONY: ready
ready:
	@scripts/doctor.sh
	@scripts/rocksdb.sh >/dev/null
