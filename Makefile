# Every target makes .venv with the exact versions of constraints.txt first, and reuses it.
# constraints.txt is also what `pip install -c` takes: edit it there, then `make test`.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python

.PHONY: demo test lint format docs bench clean

demo: .venv/ready
	$(RUN) -m sklearn_cls

test: .venv/ready
	$(RUN) -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/ready-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: .venv/ready-bench
	$(RUN) benchmarks/bench_readout.py --out benchmarks/readout.csv
	$(RUN) benchmarks/bench_fit.py --out benchmarks/fit.csv
	$(RUN) benchmarks/bench_memmap.py --out benchmarks/memmap.csv
	$(RUN) benchmarks/bench_speed.py --out benchmarks/speed.csv
	rm -f benchmarks/accuracy.csv  # what it holds is not run again
	$(RUN) benchmarks/bench_accuracy.py --protocol test --out benchmarks/accuracy.csv

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
# torch alone and by its exact version: anything looser may bring another build of it.
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

.venv/ready-bench: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

.venv/ready-docs: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv demo docs/_build docs/generated
