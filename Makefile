# Needs Python >= 3.11 and make, nothing else. Everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types imports check bench reproduce clean

demo: $(VENV)/.installed  ## inspect a checkpoint, measure one, recalibrate one, run the gate
	$(BIN)/bnaudit inspect sample_models/lagging_ema.pt --against sample_models/healthy.pt
	$(BIN)/bnaudit measure sample_models/small_batch.pt --config sample_models/bnaudit.toml
	$(BIN)/bnaudit recalibrate sample_models/lagging_ema.pt --config sample_models/bnaudit.toml \
		--data-arg split=train --verify npz:sample_models/digits.npz --verify-arg split=test \
		-o bnaudit-results/lagging_ema.recalibrated.pt --overwrite
	$(BIN)/bnaudit gate sample_models/healthy.pt --config sample_models/bnaudit.toml

test: $(VENV)/.installed-dev  ## the tests that need a minute or two and no GPU
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

imports: $(VENV)/.installed-dev  ## imports point one way
	$(BIN)/lint-imports

check: lint types imports test

bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/moments_kernel.py
	$(BIN)/python benchmarks/measure_overhead.py
	$(BIN)/python benchmarks/recalibrate.py
	$(BIN)/python benchmarks/recalibrate.py --residuals
	$(BIN)/python benchmarks/inspect_checkpoint.py
	$(BIN)/python benchmarks/find_architecture.py
	$(BIN)/python benchmarks/sweeps.py
	$(BIN)/python benchmarks/ranks.py

reproduce: $(VENV)/.installed  ## try the papers' claims; writes sample_models/REPRODUCTION.md, half an hour at most
	cd sample_models && OMP_NUM_THREADS=1 ../$(BIN)/python -m reproduce

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
