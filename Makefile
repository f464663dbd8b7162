# Thin on purpose: each target is one line of a real tool.
.DEFAULT_GOAL := help
PYTHON  ?= python3.11
BIN     := .venv/bin
PACKAGES := protos common services/ca services/chaincode-support services/event-hub shim client cli
INSTALL  := $(BIN)/pip install --quiet --disable-pip-version-check
IMPORTS  := selvedge_common certificate_authority chaincode_support event_hub selvedge_shim selvedge_client selvedge_cli
TESTS    := $(filter-out samples/%-node,$(wildcard $(PACKAGES:=/tests) samples/* tests bench))
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
           --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.PHONY: help run test unit e2e shims sdks fuzz bench soak lint types protos requirements clean
help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.venv/runtime: requirements/runtime.txt requirements/build.txt $(PACKAGES:=/pyproject.toml)
	@echo "Installing the pinned requirements into .venv, once; this takes about half a minute ..."
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH: install Python 3.11, or name yours: make $(MAKECMDGOALS) PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(INSTALL) --no-deps --no-build-isolation $(addprefix -e ./,$(PACKAGES))
	@touch $@

.venv/dev: .venv/runtime requirements/dev.txt
	@echo "Installing what tests and linters need into .venv, once ..."
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

run: .venv/runtime ## all services and the sample chaincode as local processes; Ctrl-C stops them
	@$(BIN)/selvedge up --demo

test: .venv/dev lint types unit e2e shims sdks ## everything: lint, types, unit, integration and end-to-end tests

lint: .venv/dev ## style of the code
	$(BIN)/ruff check --no-cache . && $(BIN)/ruff format --check .

types: .venv/dev ## strict types; one run a test folder, since modules of tests share their names
	$(BIN)/mypy $(IMPORTS:%=-p %)
	set -e; for folder in $(TESTS); do $(BIN)/mypy $$folder; done

unit: .venv/dev ## unit and integration tests
	$(BIN)/pytest

e2e: .venv/dev ## the end-to-end suite over processes, and over containers where an engine answers
	$(BIN)/pytest tests/e2e

shims: .venv/dev ## chaincode on Fabric's own shims, over processes on both transports
	$(BIN)/pytest tests/shims

sdks: .venv/dev ## applications on Fabric's own SDKs, over processes on both transports
	$(BIN)/pytest tests/sdks

fuzz: .venv/dev ## fuzz the native transport for a minute, or SECONDS=600
	$(BIN)/python -m common.tests.comm.native.fuzz --seconds $(or $(SECONDS),60)

bench: .venv/dev ## measure start-up, memory, latency and rates; run it alone
	$(BIN)/python -m bench

soak: .venv/dev ## ten minutes of clients that behave badly, or MINUTES=3; run it alone
	$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),10)

protos: .venv/dev ## generate protos/python from the .proto files
	$(BIN)/python protos/generate.py

requirements: .venv/dev ## pin what requirements/*.in name, with hashes
	$(COMPILE) --upgrade requirements/runtime.in -o requirements/runtime.txt
	$(COMPILE) --upgrade requirements/build.in -o requirements/build.txt
	$(COMPILE) --upgrade requirements/dev.in -o requirements/dev.txt

clean: ## remove what make run made
	rm -rf .selvedge .venv
