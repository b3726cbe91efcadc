# Each target sets up .venv by itself; each alone suffices and can be repeated.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
USABLE := $(VENV)/.usable
READY := $(VENV)/.ready
READY_ALL := $(VENV)/.ready-all
# CONSTRAINTS=/dev/null takes the newest packages, EXTRAS=dev none that can be missing.
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev,gym,text,hdf5
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

.PHONY: demo test test-all test-cuda mutants lint docs bench clean

# What a user needs, without what only tests and checks do.
$(USABLE): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "setuptools>=77" wheel
	$(PIP) --no-build-isolation -e .
	@touch $@

$(READY): $(USABLE)
	$(PIP) --no-build-isolation -e ".[$(EXTRAS)]"
	@touch $@

$(READY_ALL): $(READY)
	$(PIP) --no-build-isolation -e ".[dev,all]"
	@touch $@

# One thread: the figures are then the same on every machine of a kind, whatever else runs on it.
demo: $(USABLE)
	@rm -rf runs/demo
	OMP_NUM_THREADS=1 $(BIN)/distk train cascadevae --preset demo --seed $(or $(SEED),5) --out runs/demo
	$(BIN)/distk eval runs/demo --metric clsacc --metric factorvae --metric dci --metric reconstruction
	$(BIN)/distk traverse runs/demo
	$(BIN)/distk reconstruct runs/demo

# COVERAGE=1 counts branches as well and holds them to the floor in pyproject.toml, which takes two fifths more time;
# `coverage report` and `coverage html` show the rest after it.
COUNTED = $(if $(COVERAGE),--cov --cov-report=)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(COUNTED)

test-all: $(READY_ALL)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(COUNTED)

# What needs a CUDA GPU, which the other tests do not see.
test-cuda: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 -m cuda

# Errors put in by hand, one at a time, each against the tests of its place: what none notices is told. ONLY="icm leak".
mutants: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants/run.py $(ONLY)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Warnings are errors: a link that leads nowhere ends the build. It needs no network.
docs: $(READY)
	$(PIP) --no-build-isolation -e ".[docs]"
	$(BIN)/python docs/links.py
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo "build/site/index.html"

bench: $(READY)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/metrics.py

clean:
	rm -rf $(VENV) build docs/generated *.egg-info .pytest_cache .ruff_cache .coverage .mypy_cache
