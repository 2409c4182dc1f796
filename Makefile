# Lip-sync rendering on Triton. `make demo` and `make test` need Python 3.11 or newer, make and pip, and nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
SPEECH ?= demo/speech.wav
DEVICE ?= auto
QUICK ?=
FIGURES ?=
BIN := .venv/bin
# Half of the time a test waits for a process to start or end, so two run at once. A file's tests stay together; the short ones of tests/unit come last and even it out.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
ENVIRONMENT := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check containers bench format clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: $(ENVIRONMENT) ## install the environments, the embedded Triton and the models (what is there is kept); DEVICE=cpu, gpu or tensorrt
	@$(BIN)/python -m deploy.local.install --device $(DEVICE)
	@$(BIN)/lipsync models install --missing

demo: setup ## render a real face to real speech; SPEECH=FILE takes another speech
	@$(BIN)/python -m deploy.demo demo
	@$(BIN)/lipsync render --video demo/clip.mp4 --audio $(SPEECH) -o demo/render.mp4
	@echo "Open demo/render.mp4 to see it."

test: setup ## run all the tests
	@$(PYTEST)

check: setup ## ruff, mypy --strict, import-linter, then the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PYTEST)

format: $(ENVIRONMENT) ## bring the code into its standard format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

containers: setup ## build the images, start the CPU profile with Docker, and test it; pulls the two images they come from, if they are not there yet
	@$(BIN)/pytest tests/containers

bench: setup ## measure speed and memory (15 minutes, nothing beside it) and record it; QUICK=1 or FIGURES="a h" for a look
	@$(BIN)/python -m tests.bench $(FIGURES) --effort $(if $(QUICK),quick,normal)

clean: ## remove everything that was installed or built
	rm -rf .venv .triton demo *.egg-info $(wildcard model_repository/*/) model_repository/.lock

$(ENVIRONMENT): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv .venv; else \
	  $(PYTHON) -m pip install --quiet --target .venv/virtualenv virtualenv && PYTHONPATH=.venv/virtualenv $(PYTHON) -m virtualenv --quiet .venv \
	  && $(BIN)/python -m pip install --quiet virtualenv; fi # Debian and Ubuntu keep ensurepip in python3-venv, and let pip install nowhere else
	@echo "Installing the Python packages into .venv ..."
	@$(BIN)/python -m pip install --quiet --editable '.[dev,demo]'
	@touch $@
