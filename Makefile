# `make demo` and `make test` need python3 (3.11 or newer), g++, make and perl; the rest is wheels.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: demo venv lint test test-slow docs docs-figures bench bench-unrolled formal compare sim-imagenet \
	nets clean

demo: $(VENV)/demo            ## a shipped network becomes Verilog, proven and costed
	$(BIN)/n2uq-hw demo

venv: $(VENV)/all             ## .venv with everything in it

lint: $(VENV)/all
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

test: lint                    ## ruff, mypy, import-linter, pytest; MNIST is looked for in $$N2UQ_MNIST
	$(BIN)/pytest -n $(JOBS) --dist loadfile

test-slow: $(VENV)/all        ## whole networks in simulation, every bit
	$(BIN)/pytest -m slow -n $(JOBS)

docs: $(VENV)/all             ## the pages as a site in build/docs; a warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs

docs-figures: $(VENV)/all     ## outputs and pictures of README and docs, made anew
	$(BIN)/python docs/figures.py

bench: $(VENV)/all            ## the figures of the README, measured side by side
	$(BIN)/python -m bench

bench-unrolled: $(VENV)/all build/da4ml/done   ## networks in logic beside da4ml's
	$(BIN)/python -m bench.unrolled --da4ml build/da4ml/bin/python

build/da4ml/done:             # an environment of its own: da4ml is no dependency
	$(PYTHON) -m venv build/da4ml
	build/da4ml/bin/pip --disable-pip-version-check --quiet install da4ml==0.6.0
	touch $@

formal: $(VENV)/all           ## stream contract and golden's function of every unit, proven
	$(BIN)/python -m bench.formal --jobs $(JOBS) --keep

compare: $(VENV)/all          ## the README's table: N2UQ beside nonuniform designs, in minutes
	$(BIN)/n2uq-hw compare --quick --jobs $(JOBS) --out compare

sim-imagenet: $(VENV)/all     ## the whole ResNet-18 at 224 x 224 in simulation, every logit
	$(BIN)/python -m bench.imagenet $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))

nets: $(VENV)/all             ## the accuracies of the shipped networks, measured anew
	$(BIN)/n2uq-hw nets --measure

clean:
	rm -rf $(VENV) build n2uq-demo compare

# Without build isolation setuptools is the pinned one too.
$(VENV)/demo: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/all: requirements-all.txt $(VENV)/demo
	$(PIP) install -r requirements-all.txt
	touch $@
