# patchbay. One Cargo profile (release) and one target folder for everything, so that no crate is compiled twice.
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
STEP := scripts/step

.DEFAULT_GOAL := help
.PHONY: help run build test setup fmt clippy fixtures unit deny bench loom fuzz sheet bare clean

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## install what is missing, build, start the demo (loopback only; it prints every URL)
	$(TARGET)/release/patchbay demo $(ARGS)

build: ## install what building needs, then build target/release/patchbay
	@scripts/setup.sh build
	$(CARGO) build --release --locked

test: ## install what the tests need, then format check, clippy, all tests
	@$(STEP) setup scripts/setup.sh build test
	@$(STEP) rustfmt $(CARGO) fmt --all --check
	@$(STEP) clippy $(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@$(STEP) fixtures fixtures/make.sh ci
	@$(STEP) tests $(CARGO) test --release --locked --workspace $(ARGS)

unit: ## the Rust tests alone, without the end-to-end ones: needs no peers
	$(CARGO) test --release --locked --workspace --lib --bins

fixtures: ## generate all test media into fixtures/out
	fixtures/make.sh all

deny: ## licences, duplicate crates and sources of the dependency tree (see deny.toml)
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked --no-default-features cargo-deny
	$(CARGO) deny --locked check licenses bans sources

bench: ## benchmarks; ARGS="-p patchbay-bus" picks a crate
	@scripts/setup.sh build
	$(CARGO) bench --locked --workspace $(ARGS)

loom: ## model-check the bus: every interleaving of its hand-offs (own target folder: another --cfg)
	RUSTFLAGS="--cfg loom" $(CARGO) test --release --locked --target-dir $(TARGET)/loom -p patchbay-bus --test loom

# cargo-fuzz needs a nightly compiler; RUSTC_BOOTSTRAP lets the stable one do. Without a sanitizer it runs on stable
# as it is, and since the parsers hold no unsafe code, panics and timeouts are what there is to find.
FUZZ_TARGET ?=
FUZZ_SECONDS ?= 60
fuzz: ## coverage-guided fuzzing: make fuzz FUZZ_TARGET=NAME [FUZZ_SECONDS=60]; no name lists the targets
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@if [ -z "$(FUZZ_TARGET)" ]; then $(CARGO) fuzz list; else \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --release --sanitizer none $(FUZZ_TARGET) -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024; fi

sheet: fixtures ## the four figures of a release: load held, faults survived, bad inputs tried, nothing lost; ARGS=MINUTES (10)
	scripts/release_sheet.py $(ARGS)

bare: ## prove `make run` in a bare Debian 12 root (debootstrap, as root); ARGS=test adds `make test`
	scripts/bare-debian.sh demo $(ARGS)

clean: ## remove what the build and the tests made
	$(CARGO) clean
	rm -rf .venv tests/clients/node_modules fixtures/out
