# make demo        install into .venv and tune scVI on real cells (minutes, installing and tuning)
# make test        lint, types and the default tests
# make test-slow   the long tests
# make coverage    the default tests, and the share of the lines that they run, which must be 90 %
#                  (the processes of trials are not looked into, their code is by unit tests)
# make audit       advisories on the pinned packages: a report that fails nothing
# make bench       the benchmarks, one after the other, and README's tables from what they measure
#                  (hours; give them a quiet machine)
#
# Tests that open the report in a browser or run studies on a Slurm want Debian packages, and say
# which where they skip; .ci/run installs them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Trials run beside each other, a thread each.
export OMP_NUM_THREADS ?= 1

.PHONY: demo install install-test lint format test test-slow coverage audit bench bench-gpu clean

demo: install
	$(BIN)/scvitune tune configs/demo.yaml
	@echo "The command line is $(BIN)/scvitune; after \`source $(BIN)/activate\` it is scvitune."

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("scvitune needs Python 3.11 or later, this is " + sys.version.split()[0] + ". Say make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# torch first: asked for by other packages alone, it may come with gigabytes of CUDA libraries.
$(VENV)/.installed-torch: $(VENV)/bin/python constraints.txt
	@echo "Installing torch, the largest part, into $(VENV): this takes some minutes."
	$(PIP_INSTALL) torch
	touch $@

$(VENV)/.installed: $(VENV)/.installed-torch pyproject.toml constraints.txt
	@echo "Installing scvitune and what it is built on into $(VENV): this takes some minutes."
	$(PIP_INSTALL) -e .
	touch $@

# All at once: it holds what an installation without tests does.
$(VENV)/.installed-test: $(VENV)/.installed-torch pyproject.toml constraints.txt
	@echo "Installing scvitune, what it is built on and what its tests want into $(VENV): this takes some minutes."
	$(PIP_INSTALL) -e '.[test]'
	touch $(VENV)/.installed $@

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Tests that start a Ray run two at a time, in groups by tests/end_to_end/conftest.py: one alone
# leaves the processors idle half of the time. The others run a process each core.
WITHOUT_RAY := --ignore tests/end_to_end -n logical --maxprocesses 4 --dist loadfile
WITH_RAY := tests/end_to_end -n 2 --dist loadfile

# COVERAGE=1 counts lines on the way.
COUNTED := $(if $(COVERAGE),--cov --cov-append --cov-report=)

test: lint
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(BIN)/python -m pytest -m 'not slow' $(WITHOUT_RAY) $(COUNTED)
	$(BIN)/python -m pytest -m 'not slow' $(WITH_RAY) $(COUNTED)
	$(if $(COVERAGE),$(BIN)/coverage report --fail-under=90)

test-slow: install-test
	$(BIN)/python -m pytest -m slow $(WITHOUT_RAY)
	$(BIN)/python -m pytest -m slow $(WITH_RAY)

coverage:
	$(MAKE) test COVERAGE=1

audit: $(VENV)/bin/python
	$(BIN)/python .ci/audit.py

$(VENV)/.installed-bench: $(VENV)/.installed-test
	@echo "Installing what benchmarks want into $(VENV)."
	$(PIP_INSTALL) -e '.[test,bench]'
	touch $@

BENCHMARKS := step compiled marginal_ll memory slots fused destvi searchers schedulers recording \
	scaling long_run fidelity honesty million_cells time_to_solution against_autotune

# The peer, scvi.autotune, wants packages that scvitune does not.
bench: $(VENV)/.installed-bench
	set -e; for name in $(BENCHMARKS); do \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/measured/$$name.json; \
	done
	$(BIN)/python benchmarks/readme_tables.py

# On a machine with an NVIDIA GPU: the tests that run there, then the goals of benchmarks/README.md.
CELLS_ON_GPU := --cells 12000 --genes 2000
bench-gpu: $(VENV)/.installed-bench
	$(BIN)/python -m pytest -q -k cuda tests/unit
	$(BIN)/python benchmarks/fused.py --device cuda $(CELLS_ON_GPU) --hidden 128 \
		--trials 1 4 16 64 --epochs 5 --json benchmarks/measured/fused_on_gpu.json
	$(BIN)/python benchmarks/against_autotune.py --only fifo $(CELLS_ON_GPU) --slots 4 \
		--resources '{"cpu": 1, "gpu": 1, "fused": 16}' \
		--json benchmarks/measured/against_autotune_on_gpu.json
	$(BIN)/python examples/accelerators.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
