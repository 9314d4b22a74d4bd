# Two commands: `make demo` installs the core and does the main job, `make test` installs everything and checks it.

PYTHON ?= python3
VENV ?= .venv
# Any torch that pyproject.toml allows; this one is what the tests run on.
TORCH ?= torch==2.13.0
DATA ?= synthetic
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

.DEFAULT_GOAL := help
.PHONY: help demo test lint format clean

help:
	@echo "make demo              install the core and find tickets on a built-in graph"
	@echo "make demo DATA=cora    the same on a named data set"
	@echo "make test              install everything and run all checks"
	@echo "make format            format and fix the code"
	@echo "make clean             remove the environment and all caches"

demo: $(VENV)/.core
	$(BIN)/python examples/demo.py --data $(DATA) $(ARGS)

test: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/run_all.py $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist out

# Debian keeps the part of Python that puts pip into a new environment in a package of its own; without it the pip of
# the system installs one.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) 2>/dev/null || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet "$(TORCH)"
	$(PIP) install --quiet --editable ".[plot]"
	@touch $@

# torch-scatter and torch-sparse compile against the torch of the environment (about 10 minutes, once). A wheel that pip
# kept from another torch does not load; then they are compiled again.
$(VENV)/.dev: $(VENV)/.core
	$(PIP) install --quiet --editable ".[dev]"
	@$(BIN)/python -c "import torch_scatter, torch_sparse" 2>/dev/null || \
	  { echo "compiling torch-scatter and torch-sparse, about 10 minutes"; \
	    $(PIP) install --quiet --no-build-isolation --editable ".[kernels]" && \
	    { $(BIN)/python -W ignore -c "import torch_scatter, torch_sparse" || \
	      $(PIP) install --quiet --no-build-isolation --no-cache-dir --force-reinstall --no-deps \
	        torch-scatter==2.1.2 torch-sparse==0.6.18; } && \
	    $(BIN)/python -W ignore -c "import torch_scatter, torch_sparse"; }
	@touch $@
