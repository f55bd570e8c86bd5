# Two commands need no other step on a fresh machine: make demo, make test.
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo test lint type cover concurrency bench check servers clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

demo: .venv/.installed ## a threaded service with two named clients, against a server of its own
	$(BIN)/python examples/demo.py

test: lint type cover concurrency ## the whole suite

check: lint type ## what needs no test run

lint: .venv/.installed-dev ## style and import ranks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: .venv/.installed-dev ## mypy, strict
	$(BIN)/mypy

cover: .venv/.installed-dev servers ## the tests, with branch coverage
	$(PYTEST) --cov -m "not concurrency"

# Each of these runs twice, the second time switching threads every microsecond: too slow to be traced as well.
concurrency: .venv/.installed-dev servers ## the tests with many threads
	$(PYTEST) -m concurrency

bench: .venv/.installed servers ## turbopool beside its peers; ROUNDS=5 for steadier medians
	$(BIN)/python bench/run.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

servers:
	@scripts/install-servers.sh

clean: ## remove what the commands made
	rm -rf .venv bench/.cache bench/results build dist htmlcov .coverage .coverage.* .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	scripts/make-venv.sh .venv

.venv/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q -e .
	touch $@

.venv/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@ .venv/.installed
