# make demo   install, train LeNet on the embedded digits, print and save the result in runs/demo
# make test   install the development tools, run every test that is not marked slow
# make test-variants   the compiler's tests with red zones around all memory, for AVX2 and for the
#             plain fallback, each on this machine
# make lint   ruff, pyright and import-linter
# make clean  remove .venv, builds and caches; runs/ is yours and stays
#
# Needs Python 3.11 or later, make and a network. Another Python: make test PYTHON=python3.12

PYTHON  ?= python3
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

# Each test process computes on one thread, so that the workers do not fight for the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST     := $(ONE_THREAD) JAX_PLATFORMS=cpu MPLBACKEND=agg $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo test test-variants lint clean
help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

demo: $(VENV)/installed-full
	$(BIN)/chainrule train lenet --data digits --out runs/demo --overwrite

# make test TESTS=tests/nn runs a part; ARGS are handed to pytest.
TESTS ?= tests
test: $(VENV)/installed-dev
	$(PYTEST) -m "not slow" $(TESTS) $(ARGS)

VARIANTS := CHAINRULE_REDZONES=1 CHAINRULE_TARGET=avx2 CHAINRULE_TARGET=plain
COMPILED := tests/compiler tests/control tests/train/test_train_compiled.py
test-variants: $(VENV)/installed-dev
	@set -e; for variant in $(VARIANTS); do \
	  echo "== $$variant"; env $$variant $(PYTEST) -m "not slow" $(COMPILED) $(ARGS); \
	done

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools -type d -name __pycache__ -exec rm -rf {} + 2>/dev/null || true

# One environment. A stamp file is written when a step is done, so the next run starts at once;
# a change of pyproject.toml installs again. The sources are installed in place.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "chainrule needs Python 3.11 or later and '$(PYTHON)' is not;" \
	       "name one that is: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make a virtual environment, because its venv or ensurepip module is missing;" \
	       "install it (on Debian and Ubuntu: sudo apt install python3-venv) and run make again." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed-full: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[full]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/installed-full
