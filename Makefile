# Every target sets up what it needs first; a second call finds it done.
# ARGS goes to the command behind a target: make run ARGS="--study smoke", make test ARGS="-k plan".

.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench soak lock clean
MAKEFLAGS += --no-print-directory

ARGS ?=
# Packages: cpu (pinned in requirements/cpu.txt) or gpu (pip resolves requirements/gpu.in).
FLAVOUR ?= cpu
# The Python that the pins were resolved for, else one that is new enough.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

# Nothing that is run here reports home.
export RAY_USAGE_STATS_ENABLED := 0
export VLLM_NO_USAGE_STATS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export TOKENIZERS_PARALLELISM := false

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Twice quiet: errors alone, since a mirror that lacks a package is worth a warning to pip.
INSTALL := $(PIP) install --quiet --quiet
LISTS := $(wildcard requirements/*.$(if $(filter cpu,$(FLAVOUR)),txt,in))
# Processes share the tests, as many as there are cores and four at most, in the order of
# tests/conftest.py; the few that ARGS asks for start sooner in one.
SHARED := $(if $(ARGS),,--numprocesses logical --maxprocesses 4 --no-loadscope-reorder)
# Contents, not times, say whether the set-up still holds; the folder does too, since an editable
# install points at it.
KEY := $(shell { echo "$(FLAVOUR) $(CURDIR)"; cat $(LISTS) pyproject.toml; } | cksum | tr -d ' ')
STAMP := $(VENV)/setup-$(KEY)
UNFINISHED := $(VENV)/setup-unfinished

help: ## print this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(STAMP) ## make .venv and install everything into it

run: $(STAMP) ## run every stage of a study (default: pico)
	@$(BIN)/python -m orchestrator.run full $(ARGS)

test: $(STAMP) ## run the tests, all but the soak tests
	@$(BIN)/python -m pytest -m "not soak" $(SHARED) $(ARGS)

lint: $(STAMP) ## check style, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## measure ratios against a peer or a limit
	@$(BIN)/python -m benchmarks.run $(ARGS)

soak: $(STAMP) ## run the long fault and fuzz tests
	@$(BIN)/python -m pytest -m soak $(ARGS)

lock: $(STAMP) ## regenerate requirements/*.txt from the .in files (downloads, minutes)
	$(BIN)/python requirements/lock.py

clean: ## remove .venv, caches and build outputs; results stay
	rm -rf $(VENV) build dist eigentrace.egg-info .hypothesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted set-up leaves $(UNFINISHED) behind and is begun again from an empty .venv.
# torch goes first, on its own, and under the pins: other builds of it bring more packages along.
$(STAMP):
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "setup: Python 3.11 or newer is needed, and PYTHON='$(PYTHON)' is not that;" \
		"install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "setup: $(PYTHON) comes without venv and pip;" \
		"on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@if test -e $(UNFINISHED) || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "setup: a fresh $(VENV) with $$("$(PYTHON)" --version)"; \
		"$(PYTHON)" -m venv --clear $(VENV); fi
	@rm -f $(VENV)/setup-*; touch $(UNFINISHED)
	@started=$$(date +%s); set -e; \
	if test "$(FLAVOUR)" = cpu; then \
		echo "setup: torch, then the packages pinned in requirements/cpu.txt and dev.txt"; \
		$(INSTALL) --constraint requirements/cpu.txt "$$(grep '^torch==' requirements/cpu.txt)"; \
		$(INSTALL) --no-deps --requirement requirements/cpu.txt --requirement requirements/dev.txt; \
	else \
		echo "setup: the packages of requirements/$(FLAVOUR).in and dev.in"; \
		$(INSTALL) --requirement requirements/$(FLAVOUR).in --requirement requirements/dev.in; \
	fi; \
	echo "setup: eigentrace itself, editable"; \
	$(INSTALL) --no-deps --no-build-isolation --editable .; \
	echo "install: $$(( $$(date +%s) - started )) s"
	@mv $(UNFINISHED) $@
