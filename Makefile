# Development in an active virtual environment; `.ci/run` is what a change must pass.

.PHONY: dev test lint bench bench-compare ci

dev: ## tools, and the package as an editable install, optimised but quick to build
	pip install --group dev
	maturin develop --profile quick

test:
	cargo test
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

ci:
	.ci/run
