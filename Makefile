# The commands of this repository. Each does its own set-up; `make` alone lists them.
#
# VENV=<folder> puts the virtual environment elsewhere, PYTHON=<program> names the interpreter.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin

export VENV

.DEFAULT_GOAL := help
.PHONY: help demo local test check bench simulate setup setup-deploy setup-dev system engine lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)$$/make \1\t\2/' | expand -t 18

demo: setup ## Start a Host and a Runner here, run real tasks on them, show what they did
	@scripts/engine --if-installed || true
	@$(BIN)/python scripts/demo

local: setup-deploy ## Make this machine a cluster of its own, by Ansible: services that start at boot, for everybody on it
	@$(BIN)/hakuriver cluster deploy --inventory inventories/local $(DEPLOY)

test: system setup-dev engine ## Install what the tests need and run everything
	@scripts/run-tests

check: setup-dev ## Lint, types, imports and unit tests, in under a minute
	@scripts/run-tests --fast

bench: system setup-dev engine ## Measure against the figures that the design promises
	@$(BIN)/python -m bench $(BENCH)

simulate: setup ## Replay workloads on FIFO, EASY backfill and HakuRiver; TRACE=file.swf NODES= CORES= JOBS= LOADS= SEEDS=
	@$(BIN)/python -m bench.simulation $(TRACE) $(foreach option,NODES CORES JOBS LOADS SEEDS,\
		$(if $($(option)),--$(shell echo $(option) | tr A-Z a-z) $($(option)))) $(SIMULATE)

setup: ## Make the virtual environment that running needs
	@scripts/setup-venv requirements/runtime.txt

setup-deploy: ## Make the virtual environment that deploying needs
	@scripts/setup-venv requirements/deploy.txt

setup-dev: ## Make the virtual environment that developing needs
	@scripts/setup-venv requirements/dev.txt

system: ## Install the system packages that the tests need, where that is allowed
	@scripts/system-packages

engine: ## Start the Docker engine where no init system does
	@scripts/engine || true

lock: ## Resolve the dependencies anew and write requirements/*.txt
	@scripts/lock

clean: ## Remove the virtual environment and all that was built or cached
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
