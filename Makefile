# `make demo` and `make test` make .venv themselves; all they need is Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint bench train clean help

help:
	@echo "make demo    caption a clip with a device and a cloud on this machine"
	@echo "make test    all tests, in less than 12 minutes on two cores"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make bench   the quick benches"
	@echo "make slow    tests that take long: every clip of the unseen actors"
	@echo "make train   train the embedded pair again, from ../shared/speech"

demo: $(VENV)/.demo
	@$(BIN)/skydraft demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m bench.overhead --quick

train: $(VENV)/.dev
	$(BIN)/python -m training --speech ../shared/speech

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skydraft needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing skydraft and PyTorch into $(VENV); this takes a minute or two, once."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .cache build dist
