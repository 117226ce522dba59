# Everything there is to type. `make` alone lists it.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

LAB ?= lab
HOSTS ?= 1
SUITE ?= bookworm
SIZE ?= 250m
ROUNDS ?= 3
# Named on the command line or not at all: a variable of the environment must not turn a lab into a stack, or say yes.
of_command_line = $(if $(filter command line,$(origin $(1))),$($(1)))
PHASES := lint unit contract depot molecule stacks e2e

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export RACKLLAMA_LAB := $(LAB)
export MOLECULE_GLOB := molecule/*/molecule.yml
export MOLECULE_COMMAND_BORDERS := false

.PHONY: help
help: ## This list
	@awk -F':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nVary the lab: make up HOSTS=3 SUITE=trixie LAB=other\n'

.venv/.ready: bootstrap .config/uv.txt pyproject.toml uv.lock .python-version
	@./bootstrap

##@ Try it

.PHONY: up
up: .venv/.ready ## From a bare machine to a real model answering on a lab host; on hosts of a stack: make up STACK=aws
	@$(if $(call of_command_line,STACK),rackllama tools && rackllama stack up $(STACK) $(if $(call of_command_line,YES),--yes),rackllama lab up $(LAB) --hosts $(HOSTS) --suite $(SUITE))

.PHONY: lab
lab: .venv/.ready ## Lab hosts only, ready for any playbook
	@rackllama lab start $(LAB) --hosts $(HOSTS) --suite $(SUITE)

.PHONY: verify
verify: .venv/.ready ## Check what is deployed on the lab's hosts, as a report
	@ansible-playbook -i inventories/lab playbooks/verify.yml

.PHONY: ask
ask: .venv/.ready ## Ask the lab's model: make ask QUESTION="..."
	@rackllama lab ask $(LAB) $(if $(QUESTION),"$(QUESTION)")

.PHONY: shell
shell: .venv/.ready ## Log in to the lab's first host
	@rackllama lab shell $(LAB)

.PHONY: down
down: .venv/.ready ## Remove the lab; built artefacts stay in the cache. Destroy a stack: make down STACK=aws
	@$(if $(call of_command_line,STACK),rackllama stack down $(STACK) $(if $(call of_command_line,YES),--yes),rackllama lab stop $(LAB))

.PHONY: tools
tools: .venv/.ready ## Have the Pulumi CLI: the one on PATH, or the pinned one
	@rackllama tools

##@ Test it

.PHONY: test
test: .venv/.ready ## Everything that must hold: lint, unit, contract, molecule, e2e
	@set -e; for phase in $(PHASES); do \
	  printf '\n==> %s\n' $$phase; start=$$SECONDS; \
	  $(MAKE) --no-print-directory $$phase || { echo "make $$phase failed"; exit 1; }; \
	  spent="$$spent$$(printf '\n  %-10s %5d s' $$phase $$((SECONDS - start)))"; \
	done; printf '\nwhere the time went:%s\n  %-10s %5d s\n' "$$spent" all $$SECONDS

.PHONY: lint
lint: .venv/.ready ## ruff, mypy, vermin, yamllint, ansible-lint (profile production, nothing skipped)
	ruff check
	ruff format --check
	mypy
	vermin --quiet --no-tips --violations --target=3.9- src/rackllama/host plugins/modules
	yamllint --strict .
	ANSIBLE_INVENTORY=inventories/onprem ansible-lint --offline --strict

.PHONY: unit
unit: .venv/.ready ## Unit tests: no network, no root
	pytest tests/unit

.PHONY: contract
contract: .venv/.ready ## The rules of this repository, as tests
	pytest tests/contract

.PHONY: molecule
molecule: depot ## Every scenario on lab hosts: check, converge, idempotence, verify
	molecule test --all

.PHONY: stacks
stacks: depot ## Stacks end to end, on the real Pulumi where it is on PATH, or else on its test double
	pytest tests/stacks

.PHONY: e2e
e2e: depot ## Upstream's own tools, and one lab host from nothing to answers, with faults provoked
	pytest --durations=15 tests/depot tests/planner tests/e2e

.PHONY: test-slow
test-slow: depot ## What takes longer; last results in docs/test-results.md
	pytest tests/unit tests/planner tests/stacks tests/e2e -m slow
	pytest tests/webui -m slow

.PHONY: bench-landing
bench-landing: depot ## A landing and the manual ways in turns: make bench-landing SIZE=4g ROUNDS=5
	@python -m tests.bench.$(if $(LARGER_THAN_MEMORY),small_memory,landing --size $(SIZE) --rounds $(ROUNDS) $(if $(JSON),--json $(JSON)))

.PHONY: bench-gateway
bench-gateway: .venv/.ready ## What the gateway costs a stream, on the converged lab
	@python -m tests.bench.gateway $(LAB)

.PHONY: bench-planner
bench-planner: depot ## The plan and gguf-parser (where on PATH) against llama.cpp's own dry run: writes docs/planner-accuracy.md
	@python -m tests.bench.planner

.PHONY: bench-speed
bench-speed: .venv/.ready ## How far off the planner's tokens a second are; FIT=1 fits them anew
	@python -m tests.bench.speed $(if $(FIT),--fit)

##@ Keep it

.PHONY: format
format: .venv/.ready ## Format Python
	ruff format
	ruff check --fix

.PHONY: docs
docs: .venv/.ready ## Generate the READMEs of the roles
	python -m rackllama.docs

.PHONY: depot
depot: .venv/.ready ## Build the artefacts that lab hosts install, once
	@rackllama lab depot

.PHONY: clean
clean: ## Remove every lab, the virtual environment and the cache
	@if [ -x .venv/bin/rackllama ]; then rackllama lab stop --all; fi
	rm -rf .venv "$${XDG_CACHE_HOME:-$$HOME/.cache}/rackllama"
