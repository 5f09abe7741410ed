# Every target sets up .venv first where that is needed, so each of them works in a fresh clone.
#   make setup PYTHON=python3.12                                                  another Python
#   make setup PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" torch without CUDA (smaller)

PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?= -n logical --dist loadfile --no-loadscope-reorder

# Compiling takes most of the time, so a small network of one shape.
COMPILED := --widths 48,96,144 --cells 16 --clips 4 --precisions fp32 --networks DFGN --compile

CHECKER := beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
TENSORS := tests/model tests/diffusion $(addprefix tests/test_,masks.py codec.py copy_decoder.py curriculum.py text.py)

BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test types lint bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "RDTF needs Python 3.10 or newer: make $(MAKECMDGOALS) PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/rdtf demo

test: setup
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# The tests of tensors again, where every call checks shapes and types (a whole number may stand for a float).
types: setup
	$(BIN)/python -m pytest $(PYTEST_FLAGS) "--jaxtyping-packages=rdtf,$(CHECKER)" $(TENSORS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done
	@echo "== torch.compile"; $(BIN)/python benchmarks/peers.py $(COMPILED)

docs: setup
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build dist site .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
