# Each target works alone on a fresh machine that has Python 3.11 or newer: it builds .venv first.
PYTHON ?= $(shell for v in 3.13 3.12 3.11; do command -v python$$v && break; done || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
SCALE ?= cpu
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: setup reproduce test check book lab clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and 'Python 3.11 to 3.13 is needed')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

reproduce: $(READY)
	$(BIN)/gpo reproduce --scale $(SCALE)

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow and not browser"

book: $(READY)
	$(BIN)/gpo reproduce --scale smoke --output build/smoke

lab: $(READY)
	$(PIP) install --quiet --constraint constraints.txt jupyterlab
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
