# Two commands on a fresh machine with Python 3.10-3.14 and make: `make validate` and `make test`.
PYTHON ?= python3
TEST_WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help validate test test-slow docs notebooks lint type format clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# torch first and alone: it is the largest download. On Linux, the index in pip's settings determines the build. The
# default index has the CUDA build, which has several gigabytes. PyTorch's website gives the index of the CPU build.
$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15) and "Python 3.10-3.14 is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); this takes some minutes."
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/installed-slow: $(VENV)/installed-dev
	$(PIP) --editable '.[carla,ray]'
	@touch $@

validate: $(VENV)/installed ## train 5,000 steps on the embedded simulator and judge the run: may the long one start?
	$(BIN)/visual-td3 validate

# Two workers, each with one torch thread. Each worker begins with one half of the tests, in the order of the files, so
# that the tests of a file usually share their fixtures. A worker that has finished takes half of the tests that the
# other worker has not started.
test: $(VENV)/installed-dev ## the tests that need nothing but Python, in some minutes
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not slow and not browser and not carla and not gpu and not ray"

# Ray starts as many processes as there are cores, so its tests run without other tests beside them. They are all in two
# folders, and pytest collects only these folders.
test-slow: $(VENV)/installed-slow ## the rest: long runs, CARLA's client, Ray, pages in Debian's chromium, and CUDA where there is a GPU
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "(slow or browser or carla or gpu) and not ray"
	$(BIN)/python -m pytest -m ray tests/vec_env tests/zoo

docs: $(VENV)/installed-docs ## the documentation: docs/_build/html/index.html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -n -E -q docs docs/_build/html

notebooks: $(VENV)/installed-slow ## run the notebooks and keep their outputs
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/execute.py

lint: $(VENV)/installed-dev ## ruff, and whether everything is formatted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/installed-dev ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/installed-dev ## format everything
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean: ## remove what the other commands made, runs excepted
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
