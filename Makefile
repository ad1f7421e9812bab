# `make run` is the main job; `make test`, then `make test-page`, the page in a browser,
# `make test-service`, the service's faults, `make audit`, known vulnerabilities of what is
# installed, and `make test-engines`, on vLLM, are what CI runs (`make check` leaves out the slow
# tests). Each sets up what it needs in .venv, vLLM beside the clone, on a machine that has
# Python 3.11+ and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROFILE ?=
RUN_FLAGS ?=
CORES := $(shell getconf _NPROCESSORS_ONLN)
# Two more than cores: what waits for a time or a process leaves its core to another.
WORKERS ?= $(shell echo $$(($(CORES) + 2)))
HPLB_ENGINES ?= $(HOME)/.cache/hplb/engines

.PHONY: run check test test-page test-service audit test-engines browser setup lint unit every clean

run: setup
	@$(BIN)/hplb demo $(if $(PROFILE),--profile "$(PROFILE)") $(RUN_FLAGS)

check: setup lint unit

test: setup lint every

# The page in a real Chromium.
test-page: setup browser
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[page]'
	$(BIN)/pytest tests/page

browser:
	@if test -n "$$HPLB_CHROMIUM" || command -v chromium >/dev/null; then exit 0; fi; \
	  if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	    echo "installing Chromium: the first time takes a minute"; \
	    { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || true; \
	  fi; command -v chromium >/dev/null || \
	  echo "no Chromium: its tests are skipped (apt-get install chromium, or set HPLB_CHROMIUM)" >&2

# Processes killed, stopped and starved. As often as is claimed, written down:
# python -m benchmarks.faults --json benchmarks/results/faults.json
test-service: setup
	@$(BIN)/python -m tests.postgres --install
	$(BIN)/pytest tests/service

# Where OSV cannot be reached nothing is known, and that is said.
audit: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e '.[audit]' || true
	@$(BIN)/python -m tests.audit || test $$? = 75

# Their own folder of pytest's, whose conftest files elsewhere need what this environment has not.
test-engines:
	@engines=$$(tests/engines/make_environment.sh "$(HPLB_ENGINES)") || { \
	    test $$? = 75 && echo "tests on engines are skipped: their packages cannot be had here" >&2; exit; }; \
	  timeout 25m "$$engines/bin/python" -m pytest --confcutdir=tests/engines tests/engines

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(v < (3, 11) and f"HPLB needs Python 3.11 or newer, {sys.executable} is {v.major}.{v.minor}")'
	@echo "setting up $(VENV): the first time takes a few minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch triton
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[executor,dev]'
	@touch $@

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit:
	$(BIN)/pytest -n $(CORES) --dist worksteal -m "not slow"

every:
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
