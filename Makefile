# Every target works alone from a fresh clone: it makes .venv and installs what it needs, once.
# `make test PYTHON=python3.13` names the interpreter; `make test PYTEST_ARGS="-k nuts"` hands options to pytest.

PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= 2
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
REPORT := report/
SAMPLERS := nuts,reverse-sde,probability-flow,predictor-corrector,annealed-langevin
PIP_INSTALL = -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format docs test-lowest clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/.base ## compare five samplers on eight schools and write the report
	$(BIN)/scoresample compare eight_schools --samplers $(SAMPLERS) --out $(REPORT)
	@ls $(REPORT)*.html | sed 's|^|The report is at $(CURDIR)/|'

# Most of the tests' time goes into compiling programs that run once: let XLA spend less on each.
test: lint ## lint, check types and run the tests
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.test ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright

format: $(VENV)/.test ## put the code into the house's format, mending what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.docs ## build the documentation into site/, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The documentation is at $(CURDIR)/site/index.html"

test-lowest: $(LOWEST)/.test ## run the tests on the oldest versions that the package allows
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

clean: ## remove the environments and everything that was built
	rm -rf $(VENV) $(LOWEST) build dist site $(REPORT) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of extras: a target installs again only when what it installs from has changed.
$(VENV)/.base: EXTRA :=
$(VENV)/.test: EXTRA := [test]
$(VENV)/.docs: EXTRA := [docs]
$(VENV)/.base $(VENV)/.test $(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing scoresample$(EXTRA) into $(VENV) ..."
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.$(EXTRA)'
	@touch $@

$(LOWEST)/.test: pyproject.toml constraints-lowest.txt | $(LOWEST)/bin/python
	@echo "Installing scoresample[test] in its lowest versions into $(LOWEST) ..."
	@$(LOWEST)/bin/python $(PIP_INSTALL) -c constraints-lowest.txt -e '.[test]'
	@touch $@

$(BIN)/python $(LOWEST)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || { \
	  echo "scoresample needs Python 3.12 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo 'not there'):" \
	    "install a newer Python, or name one, as in 'make $(or $(firstword $(MAKECMDGOALS)),test) PYTHON=python3.13'." >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(@D:/bin=) || { rm -rf $(@D:/bin=); exit 1; }
