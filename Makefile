# `make demo`, `make test` and `make docs` need Python 3.10 or later and make, nothing else; the environment is made once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: bench demo docs test test-lowest lint types clean help

help:
	@echo "make demo         colour a photograph, train on its reference for three minutes, colour it again"
	@echo "make test         lint, types and tests"
	@echo "make test-lowest  the tests with the lowest versions of all dependencies"
	@echo "make docs         build the documentation into site/"
	@echo "make bench        time everything against the plain network: an hour on two cores"
	@echo "make clean        remove the environment and what the demo made"

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'pdnla needs Python 3.10 or later')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# The lowest version that pyproject.toml allows of each dependency it names.
$(VENV)-lowest/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct --editable ".[dev]"
	@touch $@

test-lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pytest -n auto

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

bench: $(VENV)/.installed
	$(BIN)/python scripts/benchmark.py --out benchmark

docs: $(VENV)/.installed
	$(BIN)/python -m mkdocs build --strict

test: lint types
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VENV)-lowest demo benchmark site
