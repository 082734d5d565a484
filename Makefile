# Each target first creates the virtual environment that it needs, with the exact versions of
# constraints.txt, and reuses it afterwards. PYTHON is the interpreter that creates it. To upgrade a
# package, edit constraints.txt (it is also what `pip install -c` takes) and run `make test-all`.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
# Two worker processes; an idle worker takes over tests that are queued for the other one.
PARALLEL := -n2 --dist=worksteal

.PHONY: demo test test-all coverage test-floor fuzz fuzz-files kills kills-cluster long together lint format \
	docs check-docs bench audit dist clean

# Run the demonstration, which writes a table, a figure and a model to demo/.
demo: .venv/ready
	$(RUN) -m sklearn_cls

# Run the fast tests.
test: .venv/ready
	$(RUN) -m pytest $(PARALLEL) -m "not slow"

# Check that the tests of files run every line and every branch of the code that reads and writes
# them.
coverage: .venv/ready
	$(RUN) -m pytest $(PARALLEL) -m "not slow" --cov=sklearn_cls/_persistence --cov-branch \
		--cov-report=term-missing --cov-fail-under=100 tests/test_checkpoint.py \
		tests/test_checkpoint_file.py tests/test_file_limits.py tests/test_files.py \
		tests/test_fingerprint.py tests/test_golden_files.py tests/test_hostile_files.py tests/test_model_file.py \
		tests/test_tensor_file.py

# Check the coverage, run all tests, including those marked slow, and report the 30 slowest.
test-all: coverage
	$(RUN) -m pytest $(PARALLEL) --durations=30

# Run all tests with the oldest supported version of every dependency except torch.
test-floor: .venv-floor/ready
	.venv-floor/bin/python -m pytest $(PARALLEL)

# Fuzz the public methods with 2,000 examples instead of 200, and with random sequences of 10,000
# calls instead of 200.
fuzz: .venv/ready
	FUZZ_EXAMPLES=2000 $(RUN) -m pytest tests/test_fuzz.py
	FUZZ_STEPS=10000 $(RUN) -m pytest tests/test_state_machine.py

# Load and use 10,000 mutated model files.
fuzz-files: .venv/ready
	$(RUN) -m tests.fuzz_files --mutations 10000 --workers 2

# Kill 50 running fits, and check that each one resumes exactly from its checkpoint.
kills: .venv/ready
	$(RUN) -m tests.kill_fits --kills 50

# Kill 50 workers of running fits on Dask and under torchrun, and check that each fit ends with the
# result of an undisturbed one.
kills-cluster: .venv/ready
	$(RUN) -m tests.kill_cluster_fits --kills 50

# Fit and predict many times in one process, and check for leaks of memory, files and threads.
long: .venv/ready
	$(RUN) -m tests.run_long

# Predict in eight threads at the same time, and compare with predictions made one by one; then do
# so while other threads refit, save, load, pickle and copy the estimator.
together: .venv/ready
	$(RUN) -m tests.predict_together
	$(RUN) -m tests.refit_together

# Check the code style, the formatting and the imports between packages.
lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

# Format the code and apply ruff's safe fixes.
format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Build the documentation, with warnings as errors.
docs: .venv/ready-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# Check the built pages in Chromium (on Debian, the packages chromium and chromium-driver).
check-docs: docs .venv-browser/ready
	.venv-browser/bin/python docs/check_pages.py

# Run the benchmarks, which write their results to benchmarks/*.csv.
bench: .venv/ready-bench
	$(RUN) benchmarks/bench_readout.py --out benchmarks/readout.csv
	$(RUN) benchmarks/bench_fit.py --out benchmarks/fit.csv
	$(RUN) benchmarks/bench_larger_than_memory.py --out benchmarks/larger_than_memory.csv
	$(RUN) benchmarks/bench_speed.py --out benchmarks/speed.csv
	$(RUN) benchmarks/bench_growth.py --out benchmarks/growth.csv
	$(RUN) benchmarks/bench_from_long.py --out benchmarks/from_long.csv
	$(RUN) benchmarks/bench_data_parallel.py --out benchmarks/data_parallel.csv
	$(RUN) benchmarks/bench_sums.py --out benchmarks/sums.csv
	$(RUN) benchmarks/bench_equality.py --out benchmarks/equality.csv
	$(RUN) benchmarks/bench_dask.py --out benchmarks/dask.csv
	$(RUN) benchmarks/cluster_model.py --out-efficiency benchmarks/cluster_efficiency.csv \
		--out-hours benchmarks/cluster_hours.csv --out-losses benchmarks/cluster_losses.csv
# These skip the runs that their output files already contain.
	rm -f benchmarks/clock.csv benchmarks/codes.csv benchmarks/large_batches.csv \
		benchmarks/accuracy.csv
	$(RUN) benchmarks/bench_clock.py --out benchmarks/clock.csv
	$(RUN) benchmarks/bench_codes.py --out benchmarks/codes.csv
	$(RUN) benchmarks/bench_large_batches.py --out benchmarks/large_batches.csv
	$(RUN) benchmarks/bench_accuracy.py --protocol test --out benchmarks/accuracy.csv

# Look up the pinned versions in the database of known vulnerabilities. With --strict, a package
# that the database does not contain is an error instead of being skipped.
audit: .venv-audit/ready
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# Build the sdist and the wheel into dist/, and run the fast tests against the installed wheel.
dist: .venv/ready
	PYTHON=$(PYTHON) .ci/test_wheel

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
# torch is installed first: if pip resolved torch together with the package, it might choose another
# build of it, such as CUDA instead of CPU.
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/ready-bench: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

.venv/ready-docs: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv-floor/ready: pyproject.toml constraints.txt constraints-floor.txt
	$(PYTHON) -m venv .venv-floor
# constraints.txt without the packages that constraints-floor.txt pins to an older version.
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

# Remove the virtual environments and all build outputs.
clean:
	rm -rf .venv .venv-floor .venv-audit .venv-browser
	rm -rf build demo dist docs/_build docs/auto_examples docs/generated
