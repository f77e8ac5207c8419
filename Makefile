# Each target works alone on a fresh machine that has Python 3.11 or newer: it builds .venv first.
# A name on the path need not run (version managers leave such stubs), so each candidate is tried.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c "$(FITS)" >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
SCALE ?= cpu
PARALLEL := -n auto --dist loadgroup --no-loadscope-reorder
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false
# Compiled modules and tests are kept, whatever the shell asks for: every process would compile them again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup reproduce test check soak bench book lab clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.13 is needed and was not found; name it: make PYTHON=..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

reproduce: $(READY)
	$(BIN)/gpo reproduce --scale $(SCALE)

test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not browser"

soak: $(READY)
	GPO_SOAK=1 $(BIN)/python -m pytest $(PARALLEL) $$(grep -rlE 'support\.(soak|crashing) import' tests --include='test_*.py')

bench: $(READY)
	$(BIN)/python -m gpo_theory.lowering.accuracy
	$(BIN)/python -m gpo_full.bench.run

book: $(READY)
	$(BIN)/gpo reproduce --scale smoke --output build/smoke

lab: $(READY)
	$(PIP) install --quiet --constraint constraints.txt jupyterlab
	$(BIN)/jupyter lab notebooks --LabApp.app_settings_dir="$(CURDIR)/notebooks/lab"

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
