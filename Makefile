# Every target does its own set-up (.ci/setup): system packages by apt-get, named before they are installed, and a virtual
# environment in .venv. A second run only looks. PYTHON=/path/to/python3 chooses the interpreter.
BIN := .venv/bin
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-rig setup-bench demo test test-all lint bench gallery

help:
	@echo 'make demo      the whole of vmcompat on the sample fleet, and on two real libvirt hosts where this machine can run them'
	@echo 'make test      lint, the quick tests and the rig tests'
	@echo 'make test-all  the same with the slow sweeps against libvirt'
	@echo 'make lint      ruff, mypy, and notebooks without outputs'
	@echo 'make gallery   every plot at several sizes on one page to look at, in build/gallery/index.html'
	@echo 'make bench     the speed, beside libvirt and the libraries that answer the same, in about ten minutes'

setup:
	@.ci/setup

setup-rig:
	@.ci/setup rig

setup-bench:
	@.ci/setup bench

demo: setup-rig
	@$(BIN)/python notebooks/demo.py

test: setup-rig lint
	$(BIN)/python -m pytest -m "not slow"

test-all: setup-rig lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify $(NOTEBOOKS))

bench: setup-bench
	@$(BIN)/python -m tests.bench

gallery: setup
	@$(BIN)/python -m tests.gallery
