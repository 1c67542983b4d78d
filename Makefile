PYTHON ?= python3
PROFILE ?= quick
NOTEBOOK ?=

VENV := .venv
RUN := $(VENV)/bin/python -m

.PHONY: help notebooks figures grade expected readme report site student test test-slow test-lowest bench lint format clean
.DEFAULT_GOAL := help

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

notebooks: $(VENV)/.installed ## Execute the four notebooks (PROFILE=full: real data; NOTEBOOK=3: only that one)
	@$(RUN) tools.execute --profile $(PROFILE) $(if $(NOTEBOOK),--notebook $(NOTEBOOK))

figures: $(VENV)/.installed ## Compute figures/full/ anew, and write README's results from it
	@$(RUN) tools.execute --profile full $(if $(NOTEBOOK),--notebook $(NOTEBOOK))
	@$(RUN) tools.readme

grade: $(VENV)/.installed ## Execute the notebooks anew and compare each number with the expected one
	@$(RUN) tools.grade --profile $(PROFILE) $(if $(NOTEBOOK),--notebook $(NOTEBOOK))

expected: $(VENV)/.installed ## Execute the notebooks several times: numbers and spreads to expect
	@$(RUN) tools.grade --record --profile $(PROFILE) $(if $(NOTEBOOK),--notebook $(NOTEBOOK))

readme: $(VENV)/.installed ## Write README's results and pictures from figures/full/
	@$(RUN) tools.readme

site: $(VENV)/.installed ## Write the executed notebooks, README and report as a website, build/site/
	@$(RUN) tools.site --profile $(PROFILE)

student: $(VENV)/.installed ## Write the version to fill in of the notebooks, with checks, to build/student/
	@$(RUN) tools.student

report: $(VENV)/.installed ## Typeset report/report.pdf with the numbers of figures/PROFILE (PROFILE=full)
	@$(RUN) tools.report --profile $(PROFILE)

# One thread each: the networks here are too small to gain from more, and two tests at a time do.
test: $(VENV)/.installed ## Run the tests, which execute the four notebooks in the quick profile
	@OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-slow: $(VENV)/.installed ## Run only the tests that take minutes or need the full data
	@$(RUN) pytest -m slow

test-lowest: $(VENV)/.installed ## Install the lowest versions allowed, Python 3.10, into build/lowest: fast tests, a notebook
	@$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(RUN) uv venv --quiet --clear --python 3.10 build/lowest
	@$(RUN) uv pip install --quiet --python build/lowest --resolution lowest-direct --editable '.[dev]'
	@OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -m 'not slow and not notebooks' \
		--numprocesses logical --maxprocesses 4 --dist worksteal
	@build/lowest/bin/python -m tools.execute --profile quick --notebook 3 --output build/lowest/notebooks

bench: $(VENV)/.installed ## Time the package beside its peers, in turns: benchmarks/RESULTS.md
	@$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[benchmarks]'
	@DLAPPS_PROFILE=$(PROFILE) $(VENV)/bin/python benchmarks/run.py

lint: $(VENV)/.installed ## Check style and format, notebooks included
	@$(RUN) ruff check
	@$(RUN) ruff format --check

format: $(VENV)/.installed ## Repair style and format where that can be done automatically
	@$(RUN) ruff check --fix
	@$(RUN) ruff format

clean: ## Delete the environment and all that can be made again, but not data/
	rm -rf $(VENV) build figures/quick report/report.pdf .pytest_cache .ruff_cache .hypothesis src/dlapps.egg-info

# The stamp is written last. Without it the environment is unfinished and is made anew; with an older
# one, it is brought up to date.
$(VENV)/.installed: pyproject.toml requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"Python 3.10 or newer is needed: make PYTHON=/path/to/python3")'
	@if [ -e $@ ]; then rm $@; else $(PYTHON) -m venv --clear $(VENV); fi
	@echo "Installing into $(VENV): up to 5 GB with PyTorch, some minutes the first time ..."
	@$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
