# The only commands anyone needs. Each works on a fresh clone: the environment is made on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
# The last line of a run is JSON, also when another make calls this one.
MAKEFLAGS += --no-print-directory

.PHONY: run test check format bench chaos docs clean

run: $(READY)                ## the whole pipeline on this machine, live: make run ARGS="--for 60s --json"
	@exec $(BIN)/twin-sim demo $(ARGS)

test: $(READY)               ## every test; a server that is not installed is a clear skip (a failure where CI is set)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)              ## format, lint, types, arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)             ## put the code into the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)              ## throughput, latency, CPU and memory as JSON lines: make bench ARGS="--quick"
	@$(BIN)/python -m bench $(ARGS)

chaos: $(READY)              ## kill every process of a running pipeline and count what is lost
	$(BIN)/python -m pytest tests/chaos $(ARGS)

docs: $(READY)               ## the user guide, as a site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) site build dist

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "making the environment in $(VENV) (once; needs the package index)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[all,dev]" >&2
	@touch $@
