# Two commands need no other step on a fresh machine: make demo, make test.
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Most tests wait most of the time, so that two cores do for four processes.
ABREAST := -n 4 --dist worksteal

.PHONY: help demo test lint type cover concurrency explore soak chaos bench profile faults check servers clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

demo: .venv/.installed ## a threaded service with two named clients, against a server of its own
	$(BIN)/python examples/demo.py

test: .venv/.installed-dev servers ## the whole suite
	@$(MAKE) --no-print-directory --output-sync=target -j2 check concurrency
	@$(MAKE) --no-print-directory --output-sync=target -j2 soak cover

check: lint type ## what needs no test run

lint: .venv/.installed-dev ## style and import ranks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: .venv/.installed-dev ## mypy, strict
	$(BIN)/mypy

cover: .venv/.installed-dev servers ## the tests, with branch coverage
	@scripts/run-tests.sh cover "--cov $(ABREAST)" -m "not concurrency and not soak"

# Each of these runs twice, the second time switching threads every microsecond: too slow to be traced as well.
concurrency: .venv/.installed-dev servers ## the tests with many threads
	@scripts/run-tests.sh concurrency "-n 2 --dist worksteal" -m concurrency

explore: .venv/.installed-dev ## the property tests with examples never tried before
	$(PYTEST) -n 2 --dist worksteal --hypothesis-profile explore -m "not concurrency" tests/actors tests/transport tests/unit

soak: .venv/.installed-dev servers ## a minute of chaos; make test runs it beside the others, as it mostly waits
	@scripts/run-tests.sh soak "" -m soak

chaos: .venv/.installed-dev servers ## a real nginx reloaded and killed under 64 threads; SECONDS=1800 for longer
	$(BIN)/python -W error -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

bench: .venv/.installed servers ## turbopool beside its peers; ARGS=--goals for the goals alone, ARGS="--goals --write" into docs/
	$(BIN)/python bench/run.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

profile: .venv/.installed servers ## what the microseconds of a request are spent on; ARGS=--write puts it into docs/
	$(BIN)/python bench/hot_paths.py $(ARGS)

faults: .venv/.installed-dev ## turbopool beside its peers in the same faults; ARGS=--write puts the table into docs/
	$(BIN)/python bench/faults.py $(ARGS)

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
