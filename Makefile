# Two commands on a fresh machine (rustup, Java 17, npm): `make demo` and `make test`. Downloads and build output go to a
# cache outside the clone, so that a second clone, or a clean one, starts warm.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE := $(or $(SLUICE_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/sluice,$(HOME)/.cache/sluice))
export CARGO_TARGET_DIR ?= $(CACHE)/target

DURATION ?= 60s
RATE ?= 5000
SECONDS ?= 120
TENANTS ?= 50
KEEP ?=
KILL ?=
SEEDS ?= 2000
SEED ?=
CHECK ?= both
MUTATION ?= none
GUARANTEE ?= exactly_once
EXHAUSTIVE ?=
FAULTS ?=
ROUNDS ?= 1
MINUTES ?=
TIMES ?= 1
FULL ?=
JSON ?=

.PHONY: help demo stop test quick simulate chaos failures bounces bench bench-full flamegraph build fmt fuzz own machine parts

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

demo: machine own ## everything on real parts: DURATION=60s RATE=5000 TENANTS=50, KEEP=1 leaves it running, KILL=1 kills workers
	@scripts/beside-fetch.sh cargo build --workspace --bins
	@exec "$(CARGO_TARGET_DIR)/debug/sluice-demo" --duration $(DURATION) --rate $(RATE) --tenants $(TENANTS) \
	  $(if $(filter-out 0,$(KEEP)),--keep) $(if $(filter-out 0,$(KILL)),--kill)

stop: ## end what `make demo KEEP=1` left running
	@exec "$(CARGO_TARGET_DIR)/debug/sluice-demo" --stop

test: own ## every check: format, lints, unit, contract and end-to-end tests
	@scripts/checks.sh

quick: own ## unit tests only, while working
	@cargo test --workspace --lib --exclude end-to-end

simulate: own ## the protocol against simulated faults: SEEDS=50000, or SEED=7 alone with its trace; CHECK=safety, MUTATION=no-fence, GUARANTEE=at_least_once; EXHAUSTIVE=1
	@cargo build -p simulation
	@exec "$(CARGO_TARGET_DIR)/debug/sluice-simulate" $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) --check $(CHECK) \
	  --mutation $(MUTATION) --guarantee $(GUARANTEE) $(if $(filter-out 0,$(EXHAUSTIVE)),--exhaustive)

chaos: machine own ## faults on the real parts: FAULTS=1,4,8 or all, SEED=1, ROUNDS=1 or MINUTES=60, TIMES=1 each, JSON=FILE
	@scripts/beside-fetch.sh scripts/programs.sh
	@exec "$(CARGO_TARGET_DIR)/debug/sluice-chaos" $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED)) \
	  --rounds $(ROUNDS) $(if $(MINUTES),--minutes $(MINUTES)) --times $(TIMES) $(if $(JSON),--json $(JSON))

failures: machine own ## what fails in practice, on the real parts, and how soon events flow again: ONLY=NAME,..., SEED=1, ROUNDS=1, JSON=FILE
	@scripts/beside-fetch.sh scripts/programs.sh
	@exec "$(CARGO_TARGET_DIR)/debug/sluice-chaos" --failures $(ONLY) $(if $(SEED),--seed $(SEED)) --rounds $(ROUNDS) $(if $(JSON),--json $(JSON))

bounces: machine own ## Kafka's own matrix: 100,000 records while brokers or workers are killed or stopped, eight times (a quarter of an hour)
	@scripts/beside-fetch.sh scripts/programs.sh
	@cargo test --workspace --test on_a_cluster -- --ignored --nocapture the_whole_matrix

bench: machine own ## what an event costs, how soon it is queryable, in a release build, beside the targets: ONLY=1,3,4
	@scripts/beside-fetch.sh cargo build --release --workspace --bins
	@exec "$(CARGO_TARGET_DIR)/release/sluice-bench" table $(if $(filter-out 0,$(FULL)),--full) $(if $(ONLY),--only $(ONLY))

bench-full: ## the same, for as long as the targets ask
	@$(MAKE) bench FULL=1

flamegraph: machine own ## draw docs/performance-worker.svg anew, where a worker's time goes; needs perf: EVENTS=3000000
	@scripts/beside-fetch.sh cargo build --release --workspace --bins
	@scripts/flamegraph.sh

build: own ## every program, without the tests
	@cargo build --workspace --bins

fmt: ## format the code
	@cargo fmt --all

fuzz: ## a long run of hostile inputs: TARGET=expression SECONDS=600; fuzz/fuzz_targets has the targets
	@scripts/fuzz.sh "$(TARGET)" "$(SECONDS)" "$(CACHE)/fuzz"

parts: machine ## only fetch Kafka, the registry and ClickHouse into the cache
	@devstack/parts/fetch.sh

own: # another clone's build is not this one's
	@scripts/own-build.sh

machine: # what the machine has to bring; installs it where it can
	@scripts/machine.sh
