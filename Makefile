# Two commands do everything on a fresh machine with Python 3.11+ and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_BARE := $(if $(PIP_FIND_LINKS),UV_FIND_LINKS="$(PIP_FIND_LINKS)") $(BIN)/uv pip install -q --compile-bytecode
UV := $(if $(PIP_FIND_LINKS),UV_FIND_LINKS="$(PIP_FIND_LINKS)") $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt

# A process for each core, but four at most: each needs 1.5 GB. Threads of libraries would only get
# into each other's way. A file's tests stay together, for they share what was made for them; the
# longest files begin (tests/conftest.py). Types are checked by rewritten modules: kept as bytecode,
# also where the environment says otherwise, for each process would rewrite them for a quarter minute.
# To debug: make test PYTEST="-n 0 tests/cube/test_composite.py"
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n logical --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow lint format clean

demo: $(VENV)/.core ## simulate a forest and map its species
	$(BIN)/canopycube demo demo

test: $(VENV)/.dev ## run the tests
	$(TEST) -m "not slow" $(PYTEST)

test-slow: $(VENV)/.dev ## run the long tests: notebooks, real chains, difficulty of the forest
	$(TEST) -m slow $(PYTEST)

lint: $(VENV)/.dev ## everything that is checked without running the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pgstac .moto build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache

.pgstac/.done: $(VENV)/.core # a STAC API for one test; what it needs clashes with what we need
	test -x .pgstac/bin/python || $(PYTHON) -m venv .pgstac
	$(UV_BARE) --python .pgstac/bin/python "stac-fastapi-pgstac==7.2.0" "pypgstac[psycopg]==0.10.0" "uvicorn==0.54.0"
	touch $@

.moto/.done: $(VENV)/.core # an S3 server for a test; what it needs clashes with what we need
	test -x .moto/bin/python || $(PYTHON) -m venv .moto
	$(UV_BARE) --python .moto/bin/python "moto[server]==5.2.5"
	touch $@

$(VENV)/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(UV) torch # first, at the constrained version: resolved later, it may bring gigabytes of CUDA
	$(UV) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(UV) -e ".[dev]"
	touch $@
