# `make setup` prepares this clone; every other target begins with it, and it does nothing the second time.

BIN := .venv/bin
LOCK := packaging/requirements-dev.txt
BENCH_LOCK := packaging/requirements-bench.txt
WHEELS := .wheelhouse/$(shell sha256sum $(LOCK) | cut -c1-16).complete
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help setup images run test lint bench soak wheelhouse lock clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## Install the missing packages of the system, make .venv
	@packaging/setup

images: setup ## Build the images of guests that are not there yet
	@$(BIN)/cloche image build

run: images ## Run the example in a VM of its own
	@echo "This machine's kernel is $$(uname -r); the guest tells its own below."
	@$(BIN)/cloche run -C examples/hello --vm qemu --env HOST_KERNEL="$$(uname -r)"

test: images ## Run all tests: the fast ones first, then sandboxes, then real guests
	@$(BIN)/pytest

lint: setup ## Check format, style, types, and who imports whom
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: images ## Measure, and write what came out
	@$(BIN)/pip install --quiet --require-hashes --requirement $(BENCH_LOCK)
	@$(BIN)/python bench/run.py

soak: images ## End runs in every way there is, and look for what they left
	@$(BIN)/pytest -m soak tests/soak

wheelhouse: $(WHEELS) ## Fetch the dependencies' wheels for guests without network

# For the guest's Python. The name of the stamp is the lock's hash, so it is right after a checkout too.
$(WHEELS): | setup
	@rm -rf .wheelhouse
	@$(BIN)/pip download --quiet --dest .wheelhouse --require-hashes --requirement $(LOCK) \
	    --only-binary :all: --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
	    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64
	@touch $@

lock: setup ## Lock what pyproject.toml asks for; LOCK_FLAGS=--upgrade takes the newest
	@test -x .cache/uv/bin/uv || { $(BIN)/python -m venv .cache/uv && .cache/uv/bin/pip install --quiet uv; }
	@$(call compile,pyproject.toml --group dev --group build,$(LOCK))
	@$(call compile,--group bench,$(BENCH_LOCK))

# Without what names the registry: the lock is the same wherever it is made.
compile = .cache/uv/bin/uv --native-tls --quiet pip compile $(1) --output-file $(2) --universal \
    --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url $(LOCK_FLAGS)

clean: ## Remove what was made here, .venv included; images stay (`cloche image rm`)
	@rm -rf .venv .cache .wheelhouse .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist
	@find src tests bench -name __pycache__ -prune -exec rm -rf {} +
