# `make train` and `make test` each set up everything they need: only Python (3.10 or newer) and make are assumed.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help train test test-slow bench results install lint typecheck format clean

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

train: $(READY)  ## train a model; ARGS passes settings: make train ARGS="dataset=mnist latent_dim=16"
	@$(BIN)/vae-train $(ARGS)

test: $(READY)  ## run the tests that take seconds
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(READY)  ## run the tests that take minutes
	$(BIN)/python -m pip install --quiet --editable ".[dev,postgres,slurm,ray]" || echo "an extra could not be installed; its tests are skipped"
	$(BIN)/python -m pytest -m slow

bench: $(READY)  ## measure speed beside other implementations; ARGS="--only step evaluation" runs a part
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python -m pip install --quiet --no-deps pythae || echo "pythae could not be installed; it is left out"
	$(BIN)/python -m pip install --quiet --no-deps careamics || echo "careamics could not be installed; it is left out"
	$(BIN)/python tests/benchmarks/bench.py $(ARGS)

results: $(READY)  ## train the quick entries of .docs/results.md again; ARGS="--only mnist ppca" runs some
	$(BIN)/python tests/benchmarks/results.py $(ARGS)

install: $(READY)  ## set up .venv with the package and all it needs

lint: $(READY)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(READY)  ## check types
	$(BIN)/mypy

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, builds and caches, but keep outputs
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else f"Python 3.10 or newer is needed, this is {v.major}.{v.minor}: make PYTHON=/path/to/python3.x …")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch and the rest into $(VENV): about 5 GB, some minutes the first time"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@
