# Two commands are all a newcomer needs: `make run` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test fuzz lint format docs bench clean

run: .venv/.core            ## a whole night on the embedded base, then: nomoat chat
	$(BIN)/nomoat run

test: .venv/.dev            ## the whole suite, fast tests first
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0

fuzz: .venv/.dev            ## 2,000 requests made up from the server's OpenAPI document
	NOMOAT_FUZZ_CASES=2000 $(BIN)/python -m pytest tests/serve/test_fuzz.py

lint: .venv/.dev            ## formatter, linter, types, import directions
	$(BIN)/ruff format --check src tests bench recipes
	$(BIN)/ruff check src tests bench recipes
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev          ## rewrite what the formatter and linter can
	$(BIN)/ruff format src tests bench recipes
	$(BIN)/ruff check --fix src tests bench recipes

docs: .venv/.dev            ## rewrite the generated pages of docs/
	$(BIN)/python -m nomoat.cli.docs
	$(BIN)/python -m nomoat.cli.reference docs

bench: .venv/.dev           ## side-by-side benchmarks, one after the other: hours; each alone says --help
	for file in bench/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv .nomoat

.venv/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/.dev: .venv/.core
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
