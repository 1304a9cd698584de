# Everything goes through here: the README, CI and people call the same targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PG15 := /usr/lib/postgresql/15/bin
TEST_PROCESSES ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup up demo test test-15 check format bench acceptance openapi lock clean

help: ## show this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "Headway needs Python 3.11 to 3.13; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Could not make $(VENV); on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.server: requirements/server.txt pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): a minute the first time …"
	@$(BIN)/pip install --quiet --require-hashes -r requirements/server.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.server
	@echo "Installing what development needs …"
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

setup: $(VENV)/.server ## make .venv and install; .venv/bin/headway then works

up: $(VENV)/.server ## start everything on this machine; Ctrl-C stops it
	@exec $(BIN)/headway up

demo: $(VENV)/.server ## start everything with a demo fleet
	@exec $(BIN)/headway up --demo

test: $(VENV)/.dev ## run the test suite on a real PostgreSQL 18, and what depends on its version on 15 where that is installed
	$(BIN)/pytest -n $(TEST_PROCESSES)
	@if [ -x $(PG15)/postgres ]; then $(MAKE) --no-print-directory test-15; else echo "PostgreSQL 15 is not in $(PG15): not tested on it"; fi

test-15: $(VENV)/.dev
	HEADWAY_TEST_PG_BIN=$(PG15) $(BIN)/pytest -n $(TEST_PROCESSES) tests/property tests/runs tests/health tests/migrations

check: $(VENV)/.dev ## lint, types, architecture
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

acceptance: $(VENV)/.dev ## the real service with real clients, and kill -9
	$(BIN)/pytest -m acceptance tests/acceptance

bench: $(VENV)/.dev ## measure against a bare baseline on this machine
	$(BIN)/python -m bench

openapi: $(VENV)/.server ## write the snapshot of the OpenAPI document
	$(BIN)/python -m headway.openapi > specs/001-run-health/contracts/openapi.json

lock: ## lock the dependencies anew (needs uv)
	uv pip compile pyproject.toml --extra server --group dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q -o requirements/dev.txt
	uv pip compile pyproject.toml --extra server --group build --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q -c requirements/dev.txt -o requirements/server.txt

clean: ## remove what was made here
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
