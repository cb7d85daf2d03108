# Every target does all the set-up it needs, on a fresh machine too: Python 3.11 to 3.13 is all it takes.
#
#   make demo      a small model answers about pictures and speech; FILE=... about your own
#   make test      formatting, lint, types, then the tests
#   make test-all  the same, with the tests marked nightly and all examples of each property
#   make test-fast the tests, but for those marked slow or nightly, with fewer examples of each property
#   make recipes   every built-in recipe in its tiny size, all stages, and a table of what came of them
#   make setup     only the environment (.venv); quick when it is there
#
# make PYTHON=python3.12 ... chooses the Python that .venv is made with.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SOURCES := src tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-fast recipes check format

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

# The environment is made anew when what it depends on has changed. constraints.txt keeps pip from a torch newer than
# those that the tests have run with; pyproject.toml leaves users free.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "make: $(PYTHON) is Python %d.%d, and weft needs 3.11, 3.12 or 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)" % v)'
	@echo "setting up .venv: some minutes the first time, most of them for torch; pip says below what it is at"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[bundled,dev,layouts,media,playground,serve]'
	@$(BIN)/weft parts || echo "make: goes on without them; fetch them later: $(BIN)/weft parts"
	@touch $(READY)

demo: setup
	@$(BIN)/weft demo $(FILE)

test: check
	@$(BIN)/python -m pytest -m "not nightly" --hypothesis-profile half

test-all: check
	@$(BIN)/python -m pytest

test-fast: setup
	@$(BIN)/python -m pytest -m "not (slow or nightly)" --hypothesis-profile fast

recipes: setup
	@$(BIN)/python benchmarks/recipes.py

check: setup
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet $(SOURCES)
	@echo "formatting and lint are right; checking types (a minute without its cache)"
	@$(BIN)/mypy --no-error-summary

format: setup
	@$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)
