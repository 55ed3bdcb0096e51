# Development in an active virtual environment; `.ci/run` is what a change must pass.

.PHONY: dev test lint memcheck asan tsan miri mutants mutants-rust mutants-python bench bench-compare site wheel wheel-pgo reproducible soak fuzz ci

dev: ## tools, and the package as an editable install, optimised but quick to build
	python -m pip install -q 'pip>=25.1' # knows --group; the one of Python 3.11's venv does not
	python -m pip install --group dev
	maturin develop --profile quick

test:
	cargo test --lib
	pytest

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --features python -- -D warnings
	ruff check .
	ruff format --check .
	mypy

bench: ## run the benches and write docs/benchmarks.md
	python -m benches.summary --benchmark-autosave

bench-compare: ## fail where a bench is more than 10 % slower than in the run that `make bench` kept last
	pytest -q benches --benchmark-enable --benchmark-compare --benchmark-compare-fail=median:10%

site: ## the documentation as a site in site/; `python -m http.server -d site` shows it
	pip install -q $$(python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['site'])")
	PYTHONPATH=python NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --site-dir site

memcheck: ## Valgrind over the tests of the loops with `unsafe`, and over raced calls from Python (docs/safety.md)
	cargo test --lib --no-run
	valgrind -q --error-exitcode=9 --leak-check=no \
		"$$(ls -t target/debug/deps/tlbcore-* | grep -v '\.d$$' | head -1)" $(LOOPS) --skip blocks_cut --test-threads=1
	PYTHONMALLOC=malloc valgrind --leak-check=no --log-file=target/raced.log python tests/raced.py 20
	! grep -n '_core.abi3.so' target/raced.log

# Tests of what has `unsafe`, or feeds it.
LOOPS := hw:: addresses:: trace::source

# The sanitizers need a nightly toolchain with rust-src, and std built by them: otherwise they see half of the program.
SANITIZED = cargo +nightly test --locked --lib -Zbuild-std --target x86_64-unknown-linux-gnu

asan: ## the address sanitizer over the tests of the loops with `unsafe`
	RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 CARGO_TARGET_DIR=target/asan $(SANITIZED) -- $(LOOPS)

tsan: ## the thread sanitizer over the tests that use threads: pools, searches, sweeps
	RUSTFLAGS=-Zsanitizer=thread CARGO_TARGET_DIR=target/tsan $(SANITIZED) -- $(THREADED)

THREADED := pool:: check::visited sweep:: sim::run

miri: ## Miri over the vector loops against their scalar twins, on short streams
	RUSTFLAGS="-C target-feature=+avx2,+bmi1,+bmi2,+popcnt" MIRIFLAGS=-Zmiri-disable-isolation CARGO_TARGET_DIR=target/miri \
		cargo +nightly miri test --locked --lib -- hw::fast

# What a change is not noticed by: docs/testing.md. BASE is what the change is against; empty for everything.
BASE ?= main
MODULES ?= hw kernel sim check trace
MODULE ?= trace/conditions.py
MUTANTS_TESTS ?= tests/trace/test_fail_if.py tests/trace/test_trace_kinds.py
MUTANTS ?= 60
SEED ?= 24

mutants: mutants-rust mutants-python

mutants-rust: ## MUTANTS faults in each of MODULES, in the lines that changed since BASE, in one build; AGAIN=1: those left
	python -m tests.mutants_rust $(MODULES) --count $(MUTANTS) --seed $(SEED) $(if $(BASE),--since $(BASE)) \
		$(if $(AGAIN),--again)

mutants-python: ## MUTANTS faults in MODULE one at a time, drawn by SEED, judged by MUTANTS_TESTS
	python -W ignore -m tests.mutants $(MODULE) $(MUTANTS_TESTS) --count $(MUTANTS) --seed $(SEED)

wheel: ## the wheel for the index in dist/, checked; WHEEL="--zig" for glibc 2.28 on any builder
	bash .ci/wheel $(WHEEL)
	python3 .ci/check_wheel.py dist

reproducible: ## the wheel built twice, in two folders: the same bytes, or exit status 1
	bash .ci/reproducible $(WHEEL)

SOAK_SECONDS ?= 3600

soak: ## every input fuzzed, for SOAK_SECONDS in all; executions, crashes and peak memory at the end
	python -m fuzz.soak --seconds $(SOAK_SECONDS)

FUZZ_SECONDS ?= 60
FUZZED = policies machines importers addresses images checkpoints
# Without a sanitizer a target is ten times faster, and what is looked for, panics and hangs, is found as well.
CARGO_FUZZ = cargo +nightly fuzz
FUZZ_FLAGS = -O --sanitizer none --target-dir target/fuzz

fuzz: ## every target of cargo-fuzz for FUZZ_SECONDS; executions of each at the end (`cargo install cargo-fuzz`, nightly)
	python -m fuzz.corpora target/fuzz/corpus
	$(CARGO_FUZZ) build $(FUZZ_FLAGS)
	for target in $(FUZZED); do \
		$(CARGO_FUZZ) run $(FUZZ_FLAGS) $$target target/fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) \
			-timeout=20 -rss_limit_mb=4096 -max_len=16384 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

PGO := $(CURDIR)/target/pgo
SYSROOT := $(shell rustc --print sysroot)

wheel-pgo: ## a wheel built with the profile of a short run of the benches; needs rustup's component llvm-tools
	rm -rf $(PGO)
	RUSTFLAGS=-Cprofile-generate=$(PGO)/raw maturin build --release --locked --target-dir $(PGO)/generate --out $(PGO)/wheel
	pip install --force-reinstall --no-deps $(PGO)/wheel/*.whl
	pytest -q benches/bench_tlb.py benches/bench_sim.py benches/bench_check.py --benchmark-enable \
		--benchmark-max-time=0.2 --benchmark-min-rounds=1 -k "not threads and not ratio and not verdict_table"
	$(SYSROOT)/lib/rustlib/x86_64-unknown-linux-gnu/bin/llvm-profdata merge -o $(PGO)/merged.profdata $(PGO)/raw
	RUSTFLAGS=-Cprofile-use=$(PGO)/merged.profdata maturin build --release --locked --target-dir $(PGO)/use --out dist

ci:
	bash .ci/run
