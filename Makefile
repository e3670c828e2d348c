# The two commands are `make demo` and `make test`. Each builds the environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
STAMP = $(VENV)/.requirements-installed

.PHONY: help env demo test test-slow lint clean

help:
	@echo "make demo       the whole story on generated scenes: patches, training, map, report (sets everything up first)"
	@echo "make test       the tests, lint left out; under 8 minutes on two cores"
	@echo "make test-slow  the tests that take longer: kills and resumes, real imagery, two ranks"
	@echo "make lint       ruff"
	@echo "make env        only the environment, in $(VENV)"

env: $(STAMP)

# The stamp is written last: an installation that was interrupted is done again, not believed.
$(STAMP): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or pass PYTHON=…" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --requirement requirements.txt
	@touch $(STAMP)

demo: env
	$(PY) demo.py

test: env
	$(PY) -m pytest -m "not slow"

test-slow: env
	$(PY) -m pytest -m slow

lint: env
	$(PY) -m ruff check .

clean:
	rm -rf $(VENV) demo output
