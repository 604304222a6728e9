# Every target sets up `.venv` from the lock file first, if it is not there yet.
# GPU machine: make setup BUILD=gpu

BUILD ?= cpu
PYTHON ?= python3.11
LOCK := requirements/$(BUILD).lock
BIN := .venv/bin
STAMP := .venv/.installed-$(BUILD)
UV_VERSION := 0.13.9

# The CPU build of torch comes from a local folder of wheels where pip is told of one, else from PyTorch's own index.
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
else ifeq ($(BUILD),cpu)
export UV_TORCH_BACKEND := cpu
endif
export HF_HUB_OFFLINE := 1

.PHONY: setup demo test fast lint bench lock clean

setup: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; name another with PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install -q --no-deps --requirements $(LOCK)
	$(BIN)/uv pip install -q --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/journeyman demo

# Fast tests first, then a few training steps, then one vLLM server for all that need one.
test: fast
	$(BIN)/pytest -m train
	$(BIN)/pytest -m serve

fast: setup
	$(BIN)/pytest -m "not serve and not train"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

# Both lock files come from pyproject.toml. They hold no index addresses.
COMPILE = $(BIN)/uv pip compile -q pyproject.toml --group dev --group carried --extra train --extra mlflow \
	--extra otlp --extra plots --extra energy --extra s3 --extra mcp --extra postgres --extra routing \
	--override requirements/overrides.txt --no-header --no-annotate --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28
lock: setup
	$(COMPILE) --extra cpu --output-file requirements/cpu.lock
	env -u UV_FIND_LINKS $(COMPILE) --extra gpu --output-file requirements/gpu.lock

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
