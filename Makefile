# The commands that people, CI and the README use. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Any Python from 3.11 on; `make setup PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Trust what the machine trusts, as pip and git do: behind a company's proxy uv's own list is not enough.
export UV_SYSTEM_CERTS ?= 1

CHECKED := activities benchmarks cli engine examples gateway hooks planner sdk tests worker.py workflows
CHECKED_PRESENT := $(wildcard $(CHECKED))

DATA_DIR ?= .data
PORT ?= 8002
TEST_WORKERS ?= 2
COVERAGE_MIN ?= 95
PYTEST_ARGS ?=
DEMO_ARGS ?=
ALLOCATOR ?= process
PATTERN ?= $(if $(filter kubernetes,$(ALLOCATOR)),handoff,supervisor)
BENCH_ARGS ?=
SOAK_ARGS ?=

.PHONY: help setup demo test soak up check bench format lock manifests clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## .venv with everything pinned; quick when it is there already

# uv comes from the lock as well, checked by its hash, so that nothing unpinned runs. pip is enough for that one step.
$(READY): requirements.lock pyproject.toml sdk/pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or later is needed: install it, or run make PYTHON=/path/to/python" >&2; exit 1; }
	@[ -x $(BIN)/python ] && $(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@awk '/^[^ #]/ {wanted = /^uv==/} wanted' requirements.lock > $(VENV)/bootstrap.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/bootstrap.txt
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e sdk
	@touch $(READY)

demo: setup ## start everything, run the code review (PATTERN=saga: another; ALLOCATOR=kubernetes: in containers), show the result, stop
	$(BIN)/python -m examples$(if $(filter kubernetes,$(ALLOCATOR)),.containers) $(PATTERN) $(DEMO_ARGS)

test: setup ## all tests (TEST_WORKERS=, PYTEST_ARGS=)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadscope --cov --cov-report=term \
		--cov-fail-under=$(COVERAGE_MIN) $(PYTEST_ARGS)

soak: setup ## the long fault and fuzz runs
	$(BIN)/python -m pytest -m soak --timeout 0 $(SOAK_ARGS)

up: setup ## start the engine and keep it running; data in .data/ (DATA_DIR=, PORT=)
	$(BIN)/orchestrator up --data-dir $(DATA_DIR) --port $(PORT)

check: setup ## ruff, format, mypy, import-linter
	$(BIN)/ruff check $(CHECKED_PRESENT)
	$(BIN)/ruff format --check $(CHECKED_PRESENT)
	$(BIN)/mypy $(CHECKED_PRESENT)
	$(BIN)/lint-imports

bench: setup ## benchmarks: a table and JSON (BENCH_ARGS=--quick)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

format: setup ## let ruff sort imports and format
	$(BIN)/ruff check --select I --fix $(CHECKED_PRESENT)
	$(BIN)/ruff format $(CHECKED_PRESENT)

# Our own agent package is a path, not something from a registry, and so stays out of the lock.
# The second lock is the part of the first that the container image needs.
COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-package orchestration-agent \
	--custom-compile-command "make lock" --quiet

lock: setup ## refresh the locks from pyproject.toml (LOCK_ARGS=--upgrade for newer versions)
	$(COMPILE) --extra embedded --extra dev $(LOCK_ARGS) -o requirements.lock
	$(COMPILE) --constraints requirements.lock -o requirements-runtime.lock

# Built with Go by the tests where none is named; another version may write the same objects in another order.
HELM ?= $(shell $(BIN)/python -m tests.integration.deployment.helm)

manifests: setup ## render deploy/kubernetes and deploy/prometheus from the chart (HELM=)
	@{ echo "# Rendered from deploy/helm/orchestration-engine by \`make manifests\`: change the chart, not this file."; \
		$(HELM) template orchestrator deploy/helm/orchestration-engine --namespace agentcore-orchestration \
		--values deploy/kubernetes/values.yaml; } > deploy/kubernetes/orchestration-engine.yaml.new
	@mv deploy/kubernetes/orchestration-engine.yaml.new deploy/kubernetes/orchestration-engine.yaml
	cp deploy/helm/orchestration-engine/files/alerts.yaml deploy/prometheus/alerts.yaml

clean: ## remove .venv and caches; data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache htmlcov .coverage .coverage.*
