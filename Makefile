# Every target sets up its own .venv from nothing; `make PYTHON=python3.12 test` chooses another interpreter.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS := .venv/.docs
UNFINISHED := .venv/.unfinished
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
NOTEBOOKS := $(wildcard notebooks/*.py)

.PHONY: help demo test lint slow notebooks docs clean
.NOTPARALLEL:

help:
	@echo "make demo | test | lint | slow | notebooks | docs | clean"

demo: $(READY)
	@$(BIN)/ppl-models demo

test: $(READY)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ty check --quiet
	@$(PYTEST)

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/ty check
	@$(BIN)/lint-imports

slow: $(READY)
	@$(PYTEST) -m slow

# Each notebook is a percent-format .py; the .ipynb beside it is made by running it.
notebooks: $(READY)
	@$(BIN)/python -m website.notebooks $(NOTEBOOKS)

# The site, in site/: what is stale, undocumented or linked to nowhere ends it. Nothing is trained, no notebook is run.
# Without --quiet, which would hide warnings from `strict`.
docs: $(DOCS)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/docs/test_pages.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "site/index.html"

# Caches and builds; .venv, data and runs stay.
clean:
	@rm -rf build dist site .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints -o -name '*.egg-info' \) \
		-type d -prune -exec rm -rf {} +

# torch comes first and alone, so that pip takes a CPU build where it has one at hand. A set-up that was interrupted
# leaves $(UNFINISHED) behind (or no pip) and is started again from nothing; one that failed is continued.
$(READY): pyproject.toml constraints.txt
	@set -e; trap 'exit 130' INT TERM; \
	if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "setting up .venv (a few minutes, once)"; \
		mkdir -p .venv; touch $(UNFINISHED); \
		find .venv -mindepth 1 -maxdepth 1 ! -path $(UNFINISHED) -exec rm -rf {} +; \
		$(PYTHON) -m venv .venv; \
	fi; \
	touch $(UNFINISHED); \
	pip() { $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt "$$@"; }; \
	if pip "$$(grep '^torch==' constraints.txt)" && pip -e ".[dev,numpyro]"; then \
		mv $(UNFINISHED) $@; touch $@; \
	else \
		rm -f $(UNFINISHED); exit 1; \
	fi

$(DOCS): $(READY)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[docs]" && touch $@
