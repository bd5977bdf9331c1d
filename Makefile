# Needs python3 (3.11-3.13) and make; everything else is installed into .venv, pinned by constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Two workers. Each takes half of the files in order, so that tests that share compiled programs run in one process, and
# helps the other at its end.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-all check docs format install clean

demo: install
	$(BIN)/gossamer demo

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m ''

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: install
	$(BIN)/mkdocs build --strict

.PHONY: tables
tables: install
	$(BIN)/python -m benchmarks.tables

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv .cache build dist site
