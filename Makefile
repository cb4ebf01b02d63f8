# make install      the environment, in .venv
# make demo         everything once, on a small synthetic data set
# make test         lint, types and tests
# make test-gpu     the tests that need a GPU
# make docs-check   checks every command, option, link and program in the documents
# make bench-peers  measures every loader that can be installed here, in one table; SOURCE=... names the data set, and
#                   OPTIONS='--images 20000 --peers ffcv turbojpeg' and the like go to the command
# make bench-gpu    on a machine with a GPU, unattended, ten minutes: the GPU tests, loaders, stages and training. Results
#                   go to a dated directory of RESULTS=...; DATA=... names shards, SOURCE=... images; without both, small
#                   images are made up. MINUTES=7 bounds it all.
#
# VENV=none PYTHON=python3 uses that interpreter as it is, and installs nothing: for a GPU machine with its own torch.

PYTHON ?= python3.11
# The DALI wheel that fits the driver: cuda13 or cuda12.
DALI ?= cuda13
DEMO ?= demo

VENV ?= .venv
BIN := $(VENV)/bin
# One stamp for each wheel: two wheels in one environment overwrite each other.
STAMP := $(VENV)/.installed-$(DALI)

SOURCE ?=
OPTIONS ?=
DATA ?=

RESULTS ?= Results/benchmarks
MINUTES ?= 10
# What test-gpu imports, and bench-gpu beside that, where nothing is installed for them.
NEEDED := nvidia.dali torch torchvision numba pyarrow msgspec tyro filelock fsspec tenacity zlib_ng PIL tqdm pytest
bench-gpu: NEEDED += datasets simplejpeg jinja2 matplotlib

ifeq ($(VENV),none)
RUN := $(PYTHON)
READY := found
else
RUN := $(BIN)/python
READY := install
endif

.PHONY: found install demo lint types compiled test test-gpu docs-check bench-peers bench-gpu clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if ls $(VENV)/.installed-* >/dev/null 2>&1 && [ ! -e $(STAMP) ]; then \
		echo "$(VENV) holds another DALI wheel; removing it first"; rm -rf $(VENV); fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[$(DALI),dev]'
	@touch $@

found:
	@$(PYTHON) -c "import sys; from importlib.util import find_spec as has; \
		missing = [name for name in sys.argv[1:] if not (has(name.split('.')[0]) and has(name))]; \
		sys.exit('not installed for this python: ' + ' '.join(missing) if missing else 0)" $(NEEDED)

demo: install
	$(BIN)/python -m benchmarks demo --out $(DEMO)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# What every process of the tests would compile for itself in a fresh clone. mypy leaves a core idle meanwhile.
compiled: install
	$(BIN)/python -m tests.helpers.compiled

# Where this is set, each program that a test starts compiles all modules anew.
test: export PYTHONDONTWRITEBYTECODE =

test: lint
	$(MAKE) --jobs 2 types compiled
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-gpu: $(READY)
	$(RUN) -m pytest -m gpu -rs tests/gpu

docs-check: install
	$(BIN)/python -m pytest tests/test_docs.py -q

# The table leaves out a peer that cannot be installed, and says so.
bench-peers: install
	-$(BIN)/python -m benchmarks peers-install
	$(BIN)/python -m benchmarks peers --source $(or $(SOURCE),ILSVRC/imagenet-1k) --out $(RESULTS) $(OPTIONS)

bench-gpu: $(READY)
	$(RUN) -m benchmarks gpu --minutes $(MINUTES) --out $(RESULTS) $(if $(DATA),--data $(DATA)) $(if $(SOURCE),--source $(SOURCE))

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
