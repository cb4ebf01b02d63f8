# make install      the environment, in .venv
# make demo         everything once, on a small synthetic data set
# make test         lint, types and tests
# make test-gpu     the tests that need a GPU
# make docs-check   checks every command, option, link and program in the documents
# make bench-peers  measures every loader that can be installed here, in one table; SOURCE=... names the data set
# make bench-gpu    on a machine with a GPU, unattended, ten minutes: the GPU tests, loaders, stages and training. Results
#                   go to a dated directory of Results/benchmarks/. DATA=... names shards, SOURCE=... images; without
#                   both, small images are made up.

PYTHON ?= python3.11
# The DALI wheel that fits the driver: cuda13 or cuda12.
DALI ?= cuda13
DEMO ?= demo

VENV := .venv
BIN := $(VENV)/bin
# One stamp for each wheel: two wheels in one environment overwrite each other.
STAMP := $(VENV)/.installed-$(DALI)

SOURCE ?=
DATA ?=

.PHONY: install demo lint types test test-gpu docs-check bench-peers bench-gpu clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if ls $(VENV)/.installed-* >/dev/null 2>&1 && [ ! -e $(STAMP) ]; then \
		echo "$(VENV) holds another DALI wheel; removing it first"; rm -rf $(VENV); fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[$(DALI),dev]'
	@touch $@

demo: install
	$(BIN)/python -m benchmarks demo --out $(DEMO)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-gpu: install
	$(BIN)/python -m pytest -m gpu -rs

docs-check: install
	$(BIN)/python -m pytest tests/test_docs.py -q

# The table leaves out a peer that cannot be installed, and says so.
bench-peers: install
	-$(BIN)/python -m benchmarks peers-install
	$(BIN)/python -m benchmarks peers --source $(or $(SOURCE),ILSVRC/imagenet-1k)

bench-gpu: install
	$(BIN)/python -m benchmarks gpu $(if $(DATA),--data $(DATA)) $(if $(SOURCE),--source $(SOURCE))

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
