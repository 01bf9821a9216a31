# make demo · make test: nothing before them but a clone and Python 3.11 or later.
PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# Two workers of one thread each: torch's own threads would fight over the same cores.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench clean

help:
	@echo "make demo   compile Mamba-2's SSD, show its plan, run it on a real text"
	@echo "make test   lint, types and every test that this machine can run"
	@echo "make lint   ruff and mypy alone"
	@echo "make docs   the table of files in docs/DESIGN.md, gallery, classification, approximations, coverage"
	@echo "make bench  the CPU benchmark against transformers (minutes)"
	@echo "make clean  remove $(VENV) and caches"

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) \
	  else "Python %d.%d found, 3.11 or later expected: make PYTHON=python3.11" % v[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@# A CUDA build of torch asks for one exact triton of its own: the second try is for that.
	$(PY) -m pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[test]' || { \
	  echo "Installing with the pins failed. Once more without the pin of triton:" && \
	  grep -v '^triton==' constraints.txt > $(VENV)/constraints.txt && \
	  $(PY) -m pip install -q $(PIP_FLAGS) -c $(VENV)/constraints.txt -e '.[test]'; }
	@touch $@

demo: $(STAMP)
	$(PY) examples/demo.py

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m mypy

# What measures time runs first and alone; pytest's 5 means that there was none.
test: lint
	$(PY) -m pytest -m timing || test $$? -eq 5
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not timing" -n $(WORKERS) --dist loadfile --durations=10
	@$(PY) tests/gpu/run.py --changed

docs: $(STAMP)
	$(PY) docs/files.py
	$(PY) docs/gallery.py
	$(PY) docs/approximations.py
	$(PY) docs/coverage.py
	$(PY) -m docs.classification > /dev/null

bench: $(STAMP)
	$(PY) -m benchmarks.cpu

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis dist build
