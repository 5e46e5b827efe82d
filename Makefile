# Every target works from nothing: it builds its own virtual environment and installs what it needs, once.
#
#   make test                      the default python3, environment in .venv
#   make test PYTHON=python3.12    another interpreter, environment in .venv-3.12

PYTHON ?= python3
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
supported := $(shell $(PYTHON) -c 'import sys; print(sys.version_info >= (3, 11))')

# A named interpreter gets an environment of its own, so that lanes do not overwrite each other.
ifeq ($(origin PYTHON),file)
venv := .venv
else
venv := .venv-$(version)
endif
bin := $(venv)/bin

# The lock file describes one interpreter; the others take the newest packages.
ifeq ($(version),3.11)
constraints := constraints.txt
endif
pip_install := $(bin)/python -m pip install --quiet $(addprefix --constraint ,$(constraints))

# Processes side by side that each have a thread for every core wait for each other. Numba sets the number for torch, too.
side_by_side := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1

# What one process has compiled is there for those that tests start, and for the next run, whatever the environment says.
side_by_side += PYTHONDONTWRITEBYTECODE=

# Extra options, for example `make test ARGS="-x tests/flow"`.
ARGS ?=

.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test scripts parity interoperation peers mutate bench leaderboard calibration ablation speed dynamics hematopoiesis motion tutorials notebooks docs lint clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(venv)/.installed ## Show both halves on simulated cells; figures go to demo_output/
	$(bin)/python examples/demo.py --output demo_output $(ARGS)

several := --numprocesses=auto --maxprocesses=4 --dist=loadscope --no-loadscope-reorder

test: $(venv)/.installed-test ## Run the tests, but for those of scripts
	$(side_by_side) $(bin)/python -m pytest $(several) --ignore=tests/scripts $(ARGS)

scripts: $(venv)/.installed-test ## Run the demonstration and every benchmark in short, and look at what they print
	$(side_by_side) $(bin)/python -m pytest $(several) tests/scripts $(ARGS)

parity: .venv-parity/.installed ## Compare the metrics with the packages that defined them, in an environment of its own
	.venv-parity/bin/python -m pytest tests/parity $(ARGS)

interoperation: .venv-interoperation/.installed .venv-parity/.installed ## Test beside pertpy, decoupler, CellRank, scVelo and cell-eval
	.venv-interoperation/bin/python -m pytest tests/interoperation $(ARGS)
	.venv-parity/bin/python -m pytest tests/interoperation -k cell_eval $(ARGS)

peers: .venv-peers-cellflow/.installed .venv-peers-scgen/.installed ## Packages that the leaderboard compares with, each in an environment of its own; Python 3.12

mutate: .venv-mutation/.installed ## Change the mathematics in many small ways, and count what the tests notice
	.venv-mutation/bin/python benchmarks/mutation.py $(ARGS)

bench: $(venv)/.installed ## Benchmark the flow and its baselines on real cells
	$(bin)/python benchmarks/real_cells.py $(ARGS)

leaderboard: $(venv)/.installed ## Rank flows and baselines on three held-out tasks of real cells
	$(bin)/python benchmarks/leaderboard.py $(ARGS)

calibration: $(venv)/.installed ## Which metrics are calibrated, and which cheaters they catch
	$(bin)/python benchmarks/metric_calibration.py $(ARGS)

ablation: $(venv)/.installed ## Compare networks, parametrisations and sources of the flow at equal time
	$(bin)/python benchmarks/flow_ablation.py $(ARGS)

speed: $(venv)/.installed ## Measure speed, memory and scaling of the flow
	$(bin)/python benchmarks/flow_speed.py $(ARGS)

dynamics: $(venv)/.installed ## Compare every sparsity on systems with a known graph
	$(bin)/python benchmarks/dynamics_synthetic.py $(ARGS)

hematopoiesis: $(venv)/.installed ## Judge dynamics of bone-marrow cells beside null baselines
	$(bin)/python benchmarks/hematopoiesis.py $(ARGS)

motion: $(venv)/.installed ## Forecast human motion out of distribution, every sparsity beside null models
	$(bin)/python benchmarks/motion_capture.py $(ARGS)

tutorials: $(venv)/.installed-tutorials ## Run the tutorials from start to end, two of them on a MuData too
	$(bin)/python -m pytest tutorials $(ARGS)

notebooks: $(venv)/.installed-tutorials ## Run the tutorials and keep their outputs
	$(bin)/python tutorials/run.py --keep $(ARGS)

docs: $(venv)/.installed-doc ## Build the documentation into docs/_build/html
	rm -rf docs/generated docs/_build/doctrees docs/_build/html/generated # pages of names that are no longer public, or were not when last built
	$(bin)/python -m sphinx -M html docs docs/_build --fail-on-warning --keep-going $(ARGS)

lint: $(venv)/.installed-dev ## Check style, formatting and types
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy

clean: ## Remove the environments and everything that was generated
	rm -rf .venv .venv-* .coverage* .mypy_cache .pytest_cache .ruff_cache build demo_output dist docs/_build docs/generated docs/tutorials

$(bin)/python:
ifneq ($(supported),True)
	$(error Expected Python 3.11 or newer, found $(PYTHON) = "$(version)". Name another one: make $(MAKECMDGOALS) PYTHON=python3.12)
endif
	$(PYTHON) -m venv $(venv)

$(venv)/.installed: pyproject.toml $(constraints) | $(bin)/python
	$(bin)/python -m pip install --quiet --upgrade 'pip>=25.1' # the first with --group
	$(pip_install) --editable .
	touch $@

# Packages to compare with and to hand results to have dependencies that are kept out of everything else.
.venv-parity/.installed .venv-interoperation/.installed .venv-mutation/.installed: .venv-%/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-$*/bin/python -m pip install --quiet --editable . --group $*
	touch $@

# Each pins what the others cannot have. CellFlow imports `requests` without asking for it.
.venv-peers-cellflow/.installed: packages := cellflow-tools requests
.venv-peers-scgen/.installed: packages := 'pertpy[scgen]>=1.4'
.venv-peers-cellflow/.installed .venv-peers-scgen/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(@D)/bin/python -m pip install --quiet $(packages)
	touch $@

$(venv)/.installed-%: $(venv)/.installed
	$(pip_install) --group $*
	touch $@
