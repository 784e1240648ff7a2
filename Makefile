# Every target does its own set-up (.ci/setup): system packages by apt-get, named before they are installed, and a virtual
# environment in .venv. A second run only looks. PYTHON=/path/to/python3 chooses the interpreter.
BIN := .venv/bin
PARALLEL := -n auto --dist loadgroup
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-rig setup-test setup-bench demo test test-all rig-test lint bench faults gallery

help:
	@echo 'make demo      the whole of vmcompat on the sample fleet, and on two real libvirt hosts where this machine can run them'
	@echo 'make test      lint, the quick tests, and those on the rig and in a browser'
	@echo 'make test-all  the same with the slow sweeps against libvirt'
	@echo 'make rig-test  throwaway guests moved between two hosts of yours: HOSTS="qemu+ssh://h1/system qemu+ssh://h2/system"'
	@echo 'make lint      ruff, mypy, and notebooks without outputs'
	@echo 'make gallery   every plot at several sizes on one page to look at, in build/gallery/index.html'
	@echo 'make faults    migrations broken on the rig in every way, N=10 times each; goes on where it was interrupted'
	@echo 'make bench     the speed, beside libvirt and the libraries that answer the same, in about ten minutes'

setup:
	@.ci/setup

setup-rig:
	@.ci/setup rig

setup-test:
	@.ci/setup test

setup-bench:
	@.ci/setup bench

demo: setup-rig
	@$(BIN)/python notebooks/demo.py

test: setup-test lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: setup-test lint
	$(BIN)/python -m pytest $(PARALLEL)

# Each of HOSTS may go on as URI,PEER_URI,MIGRATE_URI, where the other host reaches it otherwise than this machine does.
rig-test: export VMCOMPAT_HOSTS = $(HOSTS)
rig-test: setup
	@$(BIN)/python -m pytest -v --tb=short tests/hosts

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify $(NOTEBOOKS))

bench: setup-bench
	@$(BIN)/python -m tests.bench

# The results add up in build/faults; ONLY="destination link" tries some, AGAIN=--again anew what ended badly.
faults: setup-rig
	@$(BIN)/python -m tests.faults --repeat $(or $(N),10) $(if $(ONLY),--only "$(ONLY)") $(AGAIN)

gallery: setup
	@$(BIN)/python -m tests.gallery
