# `make` lists the targets. Nothing is installed outside .venv; the base (what `make demo` needs) comes before the tools.

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/pip --quiet install --no-input
LOCK := $(BIN)/uv --quiet --no-config pip compile pyproject.toml --extra embedded --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# Many build images set it: then each of the some hundred processes that the tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup check test format demo bench drill chaos lock wheel clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

setup: .venv/.dev ## set up .venv with everything that the tests need

test: check ## check, then run the tests
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/.dev ## format, lint, types, import rules, migrations
	@$(BIN)/ruff format --check --quiet . || { echo 'Format it with: make format' >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >.venv/lint-imports.txt || { cat .venv/lint-imports.txt; exit 1; }
	@$(BIN)/squawk migrations/*.sql >.venv/squawk.txt 2>&1 || { cat .venv/squawk.txt; exit 1; }

format: .venv/.dev ## format the code and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

demo: .venv/.base ## run the demonstration; NATS and PostgreSQL are started for it
	@$(BIN)/relight demo

bench: .venv/.dev ## run the benchmarks
	@$(BIN)/python tests/bench/run.py

drill: .venv/.dev ## run the load drill (ARGS='rolling --seconds 20', ARGS='regions --rounds 20', ARGS=--help): minutes, and both cores
	@PYTHONPATH=tests $(BIN)/python tests/drill/run.py $(ARGS)

chaos: .venv/.dev ## kill, freeze and fill up what the recorder rests on (ARGS='kills --rounds 100', ARGS=--help): an hour
	@PYTHONPATH=tests $(BIN)/python tests/chaos/run.py $(ARGS)

lock: .venv/.dev ## pin the dependencies again (UPGRADE=--upgrade for newer ones)
	@$(LOCK) --group dev --output-file requirements/dev.txt >/dev/null
	@$(LOCK) --group build --constraint requirements/dev.txt --output-file requirements/base.txt >/dev/null

wheel: .venv/.dev ## build the wheel into dist/ and look inside
	@rm -rf build dist
	@$(BIN)/pyproject-build --wheel --no-isolation >.venv/wheel.txt 2>&1 || { cat .venv/wheel.txt; exit 1; }
	@rm -rf build
	@$(BIN)/python -c 'import glob, zipfile; \
	[wheel] = glob.glob("dist/*.whl"); \
	want = {"relight/" + name for name in ["py.typed", *glob.glob("migrations/*.sql")]}; \
	missing = want - set(zipfile.ZipFile(wheel).namelist()); \
	raise SystemExit(f"{wheel} lacks {sorted(missing)}" if missing else print(wheel))'

clean: ## remove what make made
	@rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'Relight needs Python 3.11 or newer as $(PYTHON); name another one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'This Python cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.base: requirements/base.txt pyproject.toml | .venv/bin/python
	@echo 'Setting up .venv (only when requirements/ or pyproject.toml changed) ...'
	@$(PIP_INSTALL) --require-hashes --requirement requirements/base.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.base
	@echo 'Adding the tools for checks and tests ...'
	@$(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt
	@touch $@
