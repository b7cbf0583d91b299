# The first target that builds sets the machine up: see scripts/setup for what that means.

# RocksDB is C++ and slow to compile: ccache answers for every profile and clone after the first.
ifeq ($(origin CC),default)
CC := ccache gcc
endif
ifeq ($(origin CXX),default)
CXX := ccache g++
endif
export CC CXX
# For each checkout its own: where two share one, cargo takes what it has built of the other for as good as its own, by
# the age of the files alone.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/lotic/target-$(shell printf %s '$(CURDIR)' | cksum | cut -d ' ' -f 1)
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

# Tests run optimised, with debug assertions: one build serves unit tests, the kill test and the lints.
CHECKED := --workspace --profile checked --locked

CYCLES ?= 1000
SCRIPTS ?= 500
SEED ?=

# Of the benchmarks of the log.
RUNS ?= 3
LOG_BENCHMARKS := log-grid transactions latency compaction start memory

.PHONY: help setup demo test bench bench-log crash differential fmt lint doc target-dir clean

help:
	@echo 'make setup                    what the build and the tests need'
	@echo 'make demo                     the flights of January 2013, killed in the middle and finished'
	@echo 'make test                     format, lints, documentation, every test'
	@echo 'make bench [BENCH=name]       the benchmarks, each beside a peer'
	@echo 'make bench-log [RUNS=n]       the log beside Kafka: every size, codec and durability, latency, compaction'
	@echo 'make crash CYCLES=n [SEED=s]  kill and restart the flights example n times'
	@echo 'make differential [SEED=s]    SCRIPTS=n scripts of operations on Lotic and on a real Kafka, compared'
	@echo 'make fmt | lint | doc         format the code | clippy | the documentation'
	@echo 'make target-dir | clean       print where this checkout is built | remove what was built there'

setup:
	@scripts/setup

demo:
	@scripts/setup build
	cargo build --release --locked -p lotic-examples --bins
	$(CARGO_TARGET_DIR)/release/demo

test: setup
	cargo fmt --all --check
	cargo clippy $(CHECKED) --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc $(CHECKED) --no-deps
	cargo build $(CHECKED) --bins
	cargo test $(CHECKED)

bench: setup
	cargo build --release --locked --workspace --bins
	$(CARGO_TARGET_DIR)/release/bench $(BENCH)

bench-log: setup
	cargo build --release --locked -p lotic-benches
	$(CARGO_TARGET_DIR)/release/bench $(LOG_BENCHMARKS) --runs $(RUNS)

differential: setup
	cargo build $(CHECKED) --bins
	$(CARGO_TARGET_DIR)/checked/differential --scripts $(SCRIPTS) $(if $(SEED),--seed $(SEED))

crash: setup
	cargo build $(CHECKED) --bins
	$(CARGO_TARGET_DIR)/checked/crash --cycles $(CYCLES) $(if $(SEED),--seed $(SEED))

fmt:
	cargo fmt --all

lint:
	@scripts/setup build
	cargo clippy $(CHECKED) --all-targets -- -D warnings

doc:
	@scripts/setup build
	RUSTDOCFLAGS='-D warnings' cargo doc $(CHECKED) --no-deps

target-dir:
	@echo '$(CARGO_TARGET_DIR)'

clean:
	cargo clean
