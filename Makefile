# README's two commands are `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The default interpreter gets .venv; another one, given by PYTHON=..., an environment of its own beside it.
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(VERSION))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs unit notebook reproduce benchmark pins format clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.core: requirements/core.txt pyproject.toml
	@echo "Installing Metaception into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/core.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.core
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(VENV)/.core  ## meta-train MAML on sinusoids (70,000 steps) and a baseline; table and pictures in runs/demo
	@rm -rf runs/demo
	@$(BIN)/metaception train maml-sinusoid --out runs/demo/maml
	@$(BIN)/metaception train pretrain-sinusoid --out runs/demo/pretrain
	@$(BIN)/metaception compare runs/demo/maml runs/demo/pretrain

test: lint types docs unit  ## lint, types, documentation and tests (under eight minutes on 2 cores)

lint: $(VENV)/.dev  ## ruff: lint and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy over src
	@$(BIN)/mypy

docs: $(VENV)/.dev  ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # --quiet would silence the warnings that strict counts

unit: $(VENV)/.dev  ## the tests
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=8

notebook: $(VENV)/.dev  ## execute the students' notebook anew from its script
	@$(BIN)/python docs/notebooks/execute.py

format: $(VENV)/.dev  ## let ruff mend what it can
	@$(BIN)/ruff check --fix --quiet .; $(BIN)/ruff format --quiet .

reproduce: $(VENV)/.core  ## every number in results/, about two hours on 2 cores
	$(BIN)/python experiments/tuning.py
	$(BIN)/python experiments/sinusoid.py
	$(BIN)/python experiments/claims.py
	$(BIN)/python experiments/reptile_expansion.py
	$(BIN)/python experiments/hessian.py

benchmark: $(VENV)/.core  ## speed and memory beside PyTorch and higher (installs both)
	@$(PIP) install --no-build-isolation -e '.[peers]'
	$(BIN)/python benchmarks/sinusoid.py

pins: pyproject.toml  ## renew requirements/*.txt (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --extra build --upgrade --quiet -o requirements/core.txt
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --extra build --extra test --extra docs -c requirements/core.txt --upgrade --quiet -o requirements/dev.txt

clean:  ## remove what was built, environments and runs aside
	rm -rf site build dist .mypy_cache .ruff_cache
