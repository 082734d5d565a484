# Every target makes .venv with the exact versions of constraints.txt first, and reuses it.
# constraints.txt is also what `pip install -c` takes: edit it there, then `make test`.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python

.PHONY: demo test test-floor fuzz kills long together lint format docs check-docs bench audit clean

demo: .venv/ready
	$(RUN) -m sklearn_cls

test: .venv/ready
	$(RUN) -m pytest

test-floor: .venv-floor/ready
	.venv-floor/bin/python -m pytest

# What the tests do a little of, done for long.
fuzz: .venv/ready
	FUZZ_EXAMPLES=2000 $(RUN) -m pytest tests/test_fuzz.py

kills: .venv/ready
	$(RUN) -m tests.kill_fits --kills 50

long: .venv/ready
	$(RUN) -m tests.run_long

together: .venv/ready
	$(RUN) -m tests.predict_together

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/ready-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# Debian's packages are chromium and chromium-driver.
check-docs: docs .venv-browser/ready
	.venv-browser/bin/python docs/check_pages.py

bench: .venv/ready-bench
	$(RUN) benchmarks/bench_readout.py --out benchmarks/readout.csv
	$(RUN) benchmarks/bench_fit.py --out benchmarks/fit.csv
	$(RUN) benchmarks/bench_memmap.py --out benchmarks/memmap.csv
	$(RUN) benchmarks/bench_speed.py --out benchmarks/speed.csv
	rm -f benchmarks/accuracy.csv  # what it holds is not run again
	$(RUN) benchmarks/bench_accuracy.py --protocol test --out benchmarks/accuracy.csv

# Strict, as what the index knows nothing about would count as safe.
audit: .venv-audit/ready
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

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

.venv-floor/ready: pyproject.toml constraints.txt constraints-floor.txt
	$(PYTHON) -m venv .venv-floor
	sed -n 's/^\([^#=]*==\).*/^\1/p' constraints-floor.txt \
		| grep -vf - constraints.txt > .venv-floor/constraints.txt
	.venv-floor/bin/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	.venv-floor/bin/pip install --quiet --constraint .venv-floor/constraints.txt \
		--constraint constraints-floor.txt --editable '.[test]'
	touch $@

.venv-audit/ready:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit==2.10.1
	touch $@

.venv-browser/ready:
	$(PYTHON) -m venv .venv-browser
	.venv-browser/bin/pip install --quiet selenium==4.51.0
	touch $@

clean:
	rm -rf .venv .venv-floor .venv-audit .venv-browser
	rm -rf demo docs/_build docs/auto_examples docs/generated
