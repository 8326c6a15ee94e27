.DEFAULT_GOAL := help
.PHONY: help dev test tests check test-long bench lock clean

BIN := .venv/bin
RUN := $(BIN)/python -m
# One more worker than two cores: while it waits for a process or for the clock, the others go on. On servers that are given
# there is one for each: tests that look for what another leaves behind must not run at the same time.
WORKERS ?= $(if $(CP_TEST_DATABASE_URL),$(words $(CP_TEST_DATABASE_URL)),3)

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

dev: .venv/.installed ## Start everything on this machine: PostgreSQL, API, worker, three demo tenants
	@exec $(BIN)/control-plane dev

test: .venv/.installed ## Check, and beside it run every test but the long ones
	@$(MAKE) --no-print-directory --jobs 2 check tests

# In the order of collection, which begins with the modules that take long and ends with many small ones.
tests: .venv/.installed
	@$(RUN) pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

check: .venv/.installed ## Lint, formatting, types, import contracts, templates
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/control-plane template lint

test-long: .venv/.installed ## Run the long tests
	@$(RUN) pytest -m long

bench: .venv/.installed ## Measure the request path, provisioning, migrate-all and rebuilds
	@$(RUN) benchmarks

lock: .venv/.installed ## Resolve the dependencies anew into the lock files
	@$(RUN) pip install --quiet 'uv>=0.13,<0.14'
	@$(LOCK) --extra dev --output-file requirements-dev.lock pyproject.toml
	@$(LOCK) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	@echo hatchling | $(LOCK) --constraint requirements-dev.lock --output-file requirements-build.lock -

LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean: ## Remove the virtual environment and what tools left behind
	@rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/.installed: requirements-dev.lock pyproject.toml scripts/bootstrap
	@scripts/bootstrap
