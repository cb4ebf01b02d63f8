# make install   the environment, in .venv
# make demo      everything once, on a small synthetic data set
# make test      lint, types and tests
# make test-gpu  the tests that need a GPU

PYTHON ?= python3.11
# The DALI wheel that fits the driver: cuda13 or cuda12.
DALI ?= cuda13
DEMO ?= demo

VENV := .venv
BIN := $(VENV)/bin
# One stamp for each choice of wheel, since both in one environment overwrite each other.
STAMP := $(VENV)/.installed-$(DALI)

.PHONY: install demo lint types test test-gpu clean

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
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-gpu: install
	$(BIN)/python -m pytest -m gpu -rs

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
