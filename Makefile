# The commands of this repository. Each is one line of Python; `make help` lists them.
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
VALUEVERSE := $(PY) -m ops.cli

.PHONY: help run setup setup-test test lint verify trace golden simulate bench drill-ingest requirements

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+%?:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

run: setup ## Start the whole product: make run [PORT=8000] [VALUEVERSE_HOME=var]; Ctrl-C stops it
	@$(PY) -m ops.stack

setup:
	@$(PYTHON) -m ops.setup run

setup-test:
	@$(PYTHON) -m ops.setup test

test: setup-test ## Prove it: lint, types, import rules, then every test
	@$(VALUEVERSE) test

lint: setup-test ## Style, types and import rules
	@$(VALUEVERSE) lint

verify: setup ## Check the invariants of the running product's database; exit 1 when one is broken
	@$(VALUEVERSE) verify

trace: setup ## Bill a usage trace from first event to paid invoice: make trace [CSV=path]
	@$(VALUEVERSE) trace $(if $(CSV),--csv "$(CSV)")

golden: setup ## Run case files through the pure kernel: make golden [CASES=DIR or FILE]
	@$(VALUEVERSE) golden "$(CASES)"

simulate: setup-test ## Live random lives against a naive model: make simulate [SEEDS=300] [FROM=0] [WORLD=kernel|product]
	@$(VALUEVERSE) simulate $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM)) $(if $(WORLD),--world $(WORLD))

bench: setup ## Measure everything; JSON lines. make bench-NAME measures one
	@$(VALUEVERSE) bench

bench-%: setup
	@$(VALUEVERSE) bench $*

drill-ingest: setup ## Kill, cut and poison the intake of usage: make drill-ingest [SCALE=0.01] [ONLY=kills]
	@$(PY) -m ops.drill_ingest $(if $(SCALE),--scale $(SCALE)) $(if $(ONLY),--only $(ONLY))

requirements: ## Pin the requirements anew from pyproject.toml
	@$(PYTHON) -m ops.setup test
	@$(VALUEVERSE) requirements
