# Every target that runs something sets up .venv first; when that is done already it takes a fraction of a second.
# Arguments pass through: make test ARGS="-k card"

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
SETUP = PYTHONPATH=tools $(PYTHON) -m setup_env

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test notebooks docs lint types layers kernels gpu format doctor setup tiles ready clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ready  ## one network on five machines: table on screen, report in runs/demo
	@$(BIN)/hpml-sim compare --model mlp --data digits --targets cpu h200 pcm-hermes reram-neurram loihi --out runs/demo --force $(ARGS)

test: ready  ## all tests, a process a core and at most four (ARGS="-k card" for some, "-n 0" in one process)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

notebooks: ready  ## week 14: students' and instructor's notebooks, run once, as pages (ARGS="build", "run exercise_1")
	@$(BIN)/python tools/notebooks.py $(ARGS)

docs: ready  ## the documentation, in build/docs/html: no network, warnings are errors, links checked
	@rm -rf build/docs/html  # pages that no longer exist would stay
	@$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/docs/trees docs build/docs/html $(ARGS)
	@$(BIN)/python docs/links.py build/docs/html

lint: ready  ## ruff: mistakes and layout
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: ready  ## pyright
	@$(BIN)/pyright $(ARGS)

layers: ready  ## import-linter: imports point downwards, nothing goes in a circle (pyproject.toml has the floors)
	@$(BIN)/lint-imports --no-logo --no-cache $(ARGS)

kernels: ready  ## compile every CUDA kernel for real GPUs, without one (Linux; ARGS="--table": what each has in flight)
	@$(BIN)/python -m pip install --disable-pip-version-check -q --group kernels
	@$(BIN)/python tools/compile_kernels.py $(ARGS)

gpu: ready  ## on a machine with an NVIDIA GPU: tests marked gpu, then all GPU benchmarks (ARGS="--list" shows them)
	@$(BIN)/python benchmarks/gpu.py $(ARGS)

format: ready  ## let ruff fix what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

doctor: ready  ## what works on this machine, and how to fix the rest
	@$(BIN)/hpml-sim doctor $(ARGS)

setup:  ## look at every part of .venv again (ARGS="--torch 'torch==2.13.0'" for another torch)
	@$(SETUP) --check $(ARGS)

tiles:  ## build aihwkit's compiled tiles from source
	@$(SETUP) --tiles

clean:  ## remove what tools leave behind; keeps .venv and runs/
	@rm -rf build dist docs/generated *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	@find hpml_sim baselines devices tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## also remove .venv
	@rm -rf .venv

ready:
	@$(SETUP)
