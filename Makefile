# The two commands of the README: `make demo` and `make test`. Both set up what they need. `make gpu`: docs/gpu.md.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo
GPU ?= gpu

.PHONY: demo test test-slow test-without-fast test-processors gpu lint format docs release docs-serve numbers measurements notebooks slides wasm clean

demo: .venv/.installed
	$(BIN)/tinyseg demo --out $(OUT) --overwrite
	@echo "Look at $(OUT)/predictions.png and $(OUT)/curves.png"

# Two processes of pytest, each with libraries of one thread: more would wait for each other. The one that is done first
# takes tests of the other.
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=2 $(BIN)/python -m pytest

test: .venv/.installed-test
	@$(BIN)/python -c "import torch" 2>/dev/null || echo "PyTorch is not installed: the tests that compare with it are skipped ($(BIN)/python -m pip install torch)"
	@echo "The tests take about five minutes on two cores."
	@$(BIN)/tinyseg warm
	$(PYTEST) -n 2 --dist worksteal -m "not slow"

# what takes longer
test-slow: .venv/.installed-test
	$(PYTEST) -n 2 --dist worksteal -m slow

# Without tinyseg/fast everything gives the same results, slower: the tests of the rest, in a copy without that folder.
COPY := build/without-fast
test-without-fast: .venv/.installed-test
	rm -rf $(COPY) && mkdir -p $(COPY)
	git ls-files -z --cached --others --exclude-standard tinyseg tests pyproject.toml | grep -zv '^tinyseg/fast/' | xargs -0 cp --parents -t $(COPY)
	# The editable installation would find the folder in the clone: in the copy its finder is taken away.
	echo 'import sys; sys.meta_path = [f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", "")]' > $(COPY)/sitecustomize.py
	cd $(COPY) && PYTHONPATH=$(CURDIR)/$(COPY) $(CURDIR)/$(BIN)/python -c "from tinyseg import backend; assert backend.fast('cpu.threads') is None, 'tinyseg/fast is still found'"
	cd $(COPY) && PYTHONPATH=$(CURDIR)/$(COPY) OPENBLAS_NUM_THREADS=1 $(CURDIR)/$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" \
	  tests/ops tests/nn tests/models tests/training tests/prediction tests/metrics

# The kernels as they are compiled for other processors: without AVX and, where there is AVX-512, with AVX2 alone, as
# elsewhere `make test` has them. On x86 alone. What compiles and starts them is the same everywhere.
OF_KERNELS := -n 2 --dist worksteal -m "not slow" -k "not reference" tests/fast/cpu tests/ops \
  $(foreach name,ahead kernels kernel_cache threads,--ignore=tests/fast/cpu/test_$(name).py)
test-processors: .venv/.installed-test
ifeq ($(shell uname -m),x86_64)
	NUMBA_CPU_NAME=nehalem NUMBA_CPU_FEATURES=+sse4.2 $(BIN)/tinyseg warm
	NUMBA_CPU_NAME=nehalem NUMBA_CPU_FEATURES=+sse4.2 $(PYTEST) $(OF_KERNELS)
	! grep -qw avx512f /proc/cpuinfo || NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx,+avx2,+fma,+sse4.2 \
	  $(PYTEST) $(OF_KERNELS)
endif

# the proof on a GPU; GPU=gpu13 for CUDA 13
gpu: .venv/.installed-test
	$(BIN)/python -m pip install --quiet --editable ".[fast,test,bench,$(GPU)]"
	sh benchmarks/gpu.sh $(BIN)/python

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files | xargs $(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/user_program.py

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

# the numbers of README and docs, from the JSON files that hold them
numbers: .venv/.installed-docs
	$(BIN)/python docs/fill.py

# All timings and memory anew, on a machine that does nothing else: more than half an hour on two cores. ISBI=DIR adds what
# needs the sections of ISBI 2012, and trains for it.
measurements: .venv/.installed-docs
	$(BIN)/python -m pip install --quiet --editable ".[fast,test,bench,export,export-test]"
	$(BIN)/python -m benchmarks --reference
	$(BIN)/python -m benchmarks.claims $(if $(ISBI),--data $(ISBI),--parts arithmetic winograd winograd_time start processors neighbour memory runtimes)
	$(BIN)/python docs/fill.py

# the wheel and the source archive in dist/: docs/release.md
release: .venv/.installed-dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

docs-serve: docs
	$(BIN)/python -m http.server --directory docs/_build/html --bind 127.0.0.1 8000

notebooks: .venv/.installed-docs
	$(BIN)/python docs/convert.py notebooks
	@echo "Open them with Jupyter: $(BIN)/python -m pip install jupyterlab; $(BIN)/jupyter lab notebooks"

# a deck for each notebook, a page and a PDF: docs/_build/slides; needs Node.js (npx) and, for PDF, Chromium
slides: docs
	$(BIN)/python docs/slides.py docs/_build/html docs/_build/slides

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'tinyseg needs Python 3.11 or newer, found ' + sys.version)"
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[fast]"
	$(BIN)/tinyseg warm --model sdunet
	@touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable ".[fast,test]"
	@touch $@

.venv/.installed-docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable ".[fast,docs]"
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache docs/_build docs/api docs/source notebooks

# tinyseg/export/page/network.wasm from the C beside it; the file is a part of the package, and a test builds it again
WASM := tinyseg/export/page/network.wasm
wasm:
	$(BIN)/python -m ziglang cc -target wasm32-wasi -mcpu=generic+simd128+bulk_memory -O3 -std=c99 \
	  -Wall -Wextra -Wconversion -Werror -mexec-model=reactor -s tinyseg/export/c/network.c tinyseg/export/c/page.c -o $(WASM)
	chmod 644 $(WASM)
