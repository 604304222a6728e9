# Every target sets up `.venv` from the lock file first, if it is not there yet. `make help` lists them.
# GPU machine: make setup BUILD=gpu

BUILD ?= cpu
PYTHON ?= python3.11
LOCK := requirements/$(BUILD).lock
CARRIED := requirements/carried.txt
BIN := .venv/bin
STAMP := .venv/.installed-$(BUILD)
UV_VERSION := 0.13.9
TWINE_VERSION := 7.0.0

# The CPU build of torch comes from a local folder of wheels where pip is told of one, else from PyTorch's own index.
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
else ifeq ($(BUILD),cpu)
export UV_TORCH_BACKEND := cpu
endif
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test fast lint bench reference lock release clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv from the lock file; BUILD=gpu for the CUDA build, PYTHON=python3.12 for another Python

$(STAMP): $(LOCK) $(CARRIED) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; name another with PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install -q --no-deps --requirements $(LOCK) --requirements $(CARRIED)
	$(BIN)/uv pip install -q --no-deps --editable .
	touch $@

demo: setup ## Run the whole loop on a CPU, on real tasks
	$(BIN)/journeyman demo

# Fast tests first, then a few training steps, then one vLLM server for all that need one.
test: fast ## Run every test, on a real vLLM server and real training steps
	$(BIN)/pytest -m "train and not serve"
	$(BIN)/pytest -m serve

fast: setup ## Run the tests that need no server and train nothing
	$(BIN)/pytest -m "not serve and not train"

lint: setup ## Run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## Run every benchmark
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

reference: setup ## Write REFERENCE.md from the code
	PYTHONPATH=.ci $(BIN)/python -m reference

# Both lock files come from pyproject.toml. They hold no index addresses.
COMPILE = $(BIN)/uv pip compile -q pyproject.toml --group dev --extra train --extra mlflow \
	--extra otlp --extra plots --extra energy --extra s3 --extra mcp --extra postgres --extra routing --extra prompt \
	--override requirements/overrides.txt --no-header --no-annotate --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28
lock: setup ## Write both lock files from pyproject.toml
	$(COMPILE) --extra cpu --output-file requirements/cpu.lock
	env -u UV_FIND_LINKS $(COMPILE) --extra gpu --output-file requirements/gpu.lock

# The wheel is tested alone in a clean environment. Nothing is uploaded.
release: setup ## Build sdist and wheel into dist/, check them, sign their sums where gpg has a key
	rm -rf dist
	.ci/wheel "$(CURDIR)/dist"
	$(BIN)/uv tool run -q twine@$(TWINE_VERSION) check --strict dist/*.whl dist/*.tar.gz
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS && cat SHA256SUMS
	@if [ -n "$$(gpg --list-secret-keys 2>/dev/null)" ]; then gpg --armor --detach-sign dist/SHA256SUMS; \
	else echo "not signed: gpg has no secret key here; make one with gpg --quick-generate-key, or publish unsigned"; fi

clean: ## Remove builds and caches
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
