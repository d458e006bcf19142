# The commands of this project; `make` alone explains them. Variables: PYTHON, VENV, ARGS, CONFIG.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV ?= .venv
CONFIG ?= configs/llama_q4.yaml
export VENV

bin = "$(VENV)"/bin
# The second limit is for a test that hangs in native code, where the first can't interrupt it.
timeouts = --timeout=600 -o faulthandler_timeout=1200 -o faulthandler_exit_on_timeout=true
# Some 200 processes import farm: each would compile it anew where byte code may not be kept.
# Workers share the files (tests/suite.py); ARGS=-n0 is one process, for a debugger.
pytest = env -u PYTHONDONTWRITEBYTECODE $(bin)/python -m pytest -n3 --durations=15 $(timeouts)

.PHONY: help run install dev unit test check format bench soak reference pictures docs constraints clean

help:
	@echo "farm: export, deploy, check and measure LLMs on devices."
	@echo
	@echo "  make run      set up (virtual environment, pinned packages), then the main job:"
	@echo "                farm run $(CONFIG); no phone, no account, no root needed"
	@echo "  make test     set up, then every test (as root also with adb and ssh devices)"
	@echo
	@echo "  make unit     tests without network, Ray, export or devices: a minute or two"
	@echo "  make check    formatting, lint, types, layers"
	@echo "  make format   apply formatting and simple lint fixes"
	@echo "  make bench    every benchmark against its peer, one after the other"
	@echo "  make soak     thousands of simulated nights with faults; goes on where it was ended"
	@echo "  make reference     docs/reference, from the code; make pictures: those of the README"
	@echo "  make docs     the site of docs/, into build/site"
	@echo "  make constraints   pin what this environment holds into constraints.txt"
	@echo "  make clean    remove the virtual environment and caches; runs/ and FARM_HOME stay"
	@echo
	@echo "  ARGS passes arguments on:  make run ARGS='--quick --cluster none'"
	@echo "                             make unit ARGS='-k selector -x'"
	@echo "  VENV=DIR moves the environment, PYTHON=python3.12 chooses the interpreter."
	@echo "  After 'make run' or 'make install' the command is $(VENV)/bin/farm; try: farm doctor"

install:
	@scripts/install.sh run

dev:
	@scripts/install.sh dev

run: install
	@$(bin)/farm run $(CONFIG) $(ARGS)

unit: dev
	@$(pytest) tests/unit -m "not ray and not export and not lab" $(ARGS)

test: dev
	@if [ "$$(id -u)" = 0 ]; then tests/lab/install.sh; fi
	@$(pytest) $(ARGS)

# All of it, whatever fails first: one round shows everything there is to mend.
check: dev
	@failed=""; \
	for step in "ruff format --check ." "ruff check ." "mypy --strict farm runners models benchmarks tests" \
	    "lint-imports"; do \
	  echo "==> $$step"; $(bin)/$$step || failed="$$failed '$$step'"; \
	done; if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

format: dev
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

bench: install
	@failed=""; for file in benchmarks/*.py; do \
	  echo "==> $$file"; $(bin)/python "$$file" $(ARGS) || failed="$$failed $$file"; \
	done; if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

soak: dev
	@$(bin)/python -m tests.sim.soak $(ARGS)

reference: install
	@$(bin)/python scripts/reference.py

pictures: dev
	@$(bin)/python -m scripts.pictures

docs: reference
	@$(bin)/python -m pip --disable-pip-version-check install -q -c constraints.txt --no-build-isolation --editable ".[docs]"
	@$(bin)/mkdocs build --strict

constraints: dev
	$(bin)/python scripts/constraints.py

clean:
	@if [ -f "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
	@rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
