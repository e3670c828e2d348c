# The two commands are `make demo` and `make test`. Each builds the environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
STAMP = $(VENV)/.requirements-installed
# One worker a core, each with one thread (tests/conftest.py). PARALLEL= runs the tests in one process.
PARALLEL ?= --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: help env demo test test-slow test-nightly lint clean

help:
	@echo "make demo          the whole story on generated scenes: patches, training, map, report (sets everything up first)"
	@echo "make test          the quick tests, four minutes on two idle cores"
	@echo "make test-slow     the tests that start programs or take longer, under 20 minutes: signals, two ranks, real imagery"
	@echo "make test-nightly  long campaigns, for hours: hundreds of kills, large cases"
	@echo "make lint          ruff"
	@echo "make env           only the environment, in $(VENV)"

env: $(STAMP)

# The stamp is written last: an installation that was interrupted is done again, not believed. An environment that works is
# kept: `venv` over another interpreter's would mix the two.
$(STAMP): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or pass PYTHON=…" >&2; exit 2; }
	@$(PY) -m pip --version >/dev/null 2>&1 || { rm -f $(VENV)/bin/python*; $(PYTHON) -m venv $(VENV); }
	$(PY) -m pip install --quiet --requirement requirements.txt
	@touch $(STAMP)

demo: env
	$(PY) demo.py

test: env
	$(PY) -m pytest $(PARALLEL) -m "not slow and not nightly"

test-slow: env
	$(PY) -m pytest $(PARALLEL) -m "slow and not nightly"

test-nightly: env
	$(PY) -m pytest $(PARALLEL) -m nightly --hypothesis-profile nightly

lint: env
	$(PY) -m ruff check .

clean:
	rm -rf $(VENV) demo output
