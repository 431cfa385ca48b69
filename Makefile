# Everything runs in .venv, which is made on first use and brought up to date
# when pyproject.toml or constraints.txt changes.

PYTHON  ?= python3
PROFILE ?= quick
ARGS    ?=
UV      ?= uv

PYTHON_FLOOR := 3.11
TORCH        := 2.13.0

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
comma := ,

# An active environment must not leak into ours.
unexport PYTHONHOME PYTHONPATH JUPYTER_PATH PIP_USER PIP_TARGET PIP_PREFIX
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help reproduce test bench notebooks lab lint pins clean

help:  ## Show this help
	@echo "make TARGET [PROFILE=quick|overnight|paper] [ARGS='...'] [PYTHON=python3]"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-12s%s\n", $$1, $$2}'
	@echo
	@echo "Each target makes $(VENV) when it is missing: Python $(PYTHON_FLOOR) or newer with the packages pinned in constraints.txt."

reproduce: $(STAMP)  ## Run the study and build the report: PROFILE=quick, overnight or paper; ARGS="--notebook 04"
	$(BIN)/scalestudy reproduce --profile $(PROFILE) $(ARGS)

test: $(STAMP)  ## Run the unit tests, doctests, reference vectors and notebook regression (nbval)
	$(BIN)/scalestudy data fetch
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --doctest-modules tests scalestudy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope --nbval --nbval-current-env notebooks

bench: $(STAMP)  ## Time and memory beside the authors' algorithms, and of batches (half an hour on a quiet machine)
	$(BIN)/python benchmarks/scale_convolution.py
	$(BIN)/python benchmarks/algorithms.py
	$(BIN)/python benchmarks/training_cost.py
	$(BIN)/python benchmarks/throughput.py

notebooks: $(STAMP)  ## Renew the outputs of the notebooks and results/overnight, after new committed records or code
	SCALESTUDY_RUNS="$$(mktemp -d)" SCALESTUDY_RESULTS="$(CURDIR)/results" TQDM_DISABLE=1 \
	  $(BIN)/jupyter nbconvert --log-level=WARN --to notebook --execute --inplace notebooks/*.ipynb
	$(BIN)/nbstripout --keep-output --keep-count --keep-id \
	  --extra-keys "metadata.papermill metadata.widgets cell.metadata.papermill cell.metadata.execution" notebooks/*.ipynb
	$(BIN)/python docs/fill.py

lab: $(STAMP)  ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) notebooks

lint: $(STAMP)  ## Check style and formatting of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

pins:  ## Renew constraints.txt from pyproject.toml (needs uv; ARGS=--upgrade for the newest releases)
	@command -v $(UV) >/dev/null || { echo "make pins needs uv: 'pip install uv', or give its path as UV=" >&2; exit 1; }
	@set -e; new=$$(mktemp); trap 'rm -f "$$new" "$$new.all"' EXIT; \
	  sed '/^#/d' constraints.txt >"$$new.all"; \
	  echo "torch==$(TORCH)" | $(UV) pip compile pyproject.toml --all-extras --universal --python-version $(PYTHON_FLOOR) \
	    --strip-extras --no-header --no-annotate --quiet --constraint - $(ARGS) --output-file "$$new.all" >/dev/null; \
	  sed -n '/^#/p' constraints.txt >"$$new"; \
	  grep -Ev '^(nvidia-|cuda-|triton)' "$$new.all" >>"$$new"; \
	  cat "$$new" >constraints.txt
	@echo "constraints.txt is renewed; 'make test' installs and tests it"

clean:  ## Remove the environment and build artefacts, no data and no results
	rm -rf $(VENV) build dist scalestudy.egg-info .pytest_cache .ruff_cache
	find benchmarks notebooks scalestudy tests \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} + 2>/dev/null || true

# A stamp beside a missing or broken interpreter does not count.
ifeq ($(wildcard $(BIN)/python),)
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < ($(subst .,$(comma) ,$(PYTHON_FLOOR))))' || { \
	  echo "scalestudy needs Python $(PYTHON_FLOOR) or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing scalestudy and its pinned packages into $(VENV) (the first time this takes minutes)"
	@$(BIN)/python -m pip install -qq --no-input -c constraints.txt setuptools
	@$(BIN)/python -m pip install -qq --no-input -c constraints.txt --no-build-isolation -e '.[cluster,notebooks,dev]'
	@touch $@
