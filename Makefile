# make demo      install, train and evaluate a small MSGC detector, with pictures (2 cores, no data)
# make test      install and run the quick tests          make test-all  all tests
# make lint      ruff, lint and format                    make mmcv-ops  build mmcv's compiled ops
# make docs      the documentation, into build/site    make metafiles  configs/*/metafile.yml
# make test DEPS=openmmlab    the same with OpenMMLab's own packages, in a virtual environment of its own
SHELL := /bin/bash
PYTHON ?= python3
DEPS ?= onedl
VENV := .venv$(if $(filter openmmlab,$(DEPS)),-openmmlab)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check -q
# Processes that share the tests, of about 1 GB each.
WORKERS ?= 2
DEMO := configs/demo/retinanet_msgc-r18_scenes.py
DEMO_DIR := work_dirs/demo

.PHONY: demo test test-all lint docs metafiles mmcv-ops clean

$(VENV)/.installed: pyproject.toml constraints.txt requirements-openmmlab.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else \
	  f"Python {v[0]}.{v[1]} found, expected 3.10 to 3.12: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
ifeq ($(DEPS),openmmlab)
	$(PIP) -r requirements-openmmlab.txt
	$(PIP) --no-deps -e .
else
	$(PIP) -c constraints.txt -e '.[dev]'
endif
	touch $@

demo: $(VENV)/.installed
	$(PY) tools/train.py $(DEMO) --work-dir $(DEMO_DIR)
	$(PY) tools/test.py $(DEMO) "$$(cat $(DEMO_DIR)/last_checkpoint)" --work-dir $(DEMO_DIR) \
	  --show-dir pictures
	$(PY) tools/analysis_tools/get_macs.py $(DEMO) --checkpoint "$$(cat $(DEMO_DIR)/last_checkpoint)" \
	  --images data/scenes/val --out $(DEMO_DIR)/macs.json
	$(PY) tools/report.py $(DEMO_DIR) --out $(DEMO_DIR)/report.html
	@echo "Boxes on images: $$(ls -d $(DEMO_DIR)/*/pictures | tail -n 1)"
	@echo "Report, for a browser: $(DEMO_DIR)/report.html"

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile -m 'not slow'

test-all: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

docs: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[docs]'
	$(PY) -m mkdocs build

metafiles: $(VENV)/.installed
	$(PY) .ci/metafiles.py

# mmcv's own build: needs a C++ compiler, torch at hand and about 11 minutes on two cores.
mmcv-ops: $(VENV)/.installed
	$(PIP) 'setuptools>=80' wheel ninja
	MMCV_WITH_OPS=1 $(PIP) -c constraints.txt --no-build-isolation --no-deps \
	  --no-cache-dir --force-reinstall --no-binary onedl-mmcv onedl-mmcv
	$(PY) -c 'import mmdet_groupconv.compat as c; print(c.ensure_mmcv_ops())' | grep 'ops: compiled'

clean:
	rm -rf .venv .venv-openmmlab work_dirs/*/ data build *.egg-info
