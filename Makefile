SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup repro checkout identity test test-slow test-codec smoke check format params deps readme report kodak pictures verify ui exps seeds bench lock clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/pip --disable-pip-version-check -qqq
STAMP := $(VENV)/.installed
KERNEL := $(VENV)/.kernel

export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) $(KERNEL) ## build the environment in .venv (again only when the lock changed)

$(STAMP): requirements.lock pyproject.toml
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@python -c 'import pathlib, vl_convert as vl; path = pathlib.Path(".dvc/tmp/vega.js"); \
	  path.parent.mkdir(exist_ok=True); path.write_text(vl.javascript_bundle(), encoding="utf-8")'
	@touch $@

$(KERNEL): $(STAMP) setup.py $(wildcard src/linocut/entropy/_kernel*.[ch])
	@python setup.py -q build_ext --inplace || echo "No kernel was built: numpy does its work, slower"
	@touch $@

repro: checkout setup ## run the pipeline: train every cell, compress, measure, compare
	@python -m linocut.lab.config.params --check
	dvc repro
	@$(MAKE) --no-print-directory report

checkout: # DVC works in git checkouts alone, and says so less plainly
	@git rev-parse --show-toplevel >/dev/null 2>&1 || { echo "make: this folder is not a git checkout, which DVC needs:" \
	  "git clone the project, or git init && git add -A && git commit -m Start" >&2; exit 1; }

identity: # an experiment is a commit
	@git var GIT_COMMITTER_IDENT >/dev/null 2>&1 || { echo "make: git does not know you, and experiments are commits:" \
	  "git config user.name NAME && git config user.email ADDRESS" >&2; exit 1; }

report: setup ## print the comparison and where to look next
	@python -c 'import pathlib; from linocut.lab.report.build import comparison_table as table; \
	  print(table(pathlib.Path("reports")))'

test: setup ## run all tests but the slow ones, in as many processes as there are cores
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: setup ## run the slow tests: whole pipelines, kills, full disks, an S3 server, a cluster
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile -m slow

test-codec: ## install the codec alone, without PyTorch, in .venv-codec, and run its tests there
	$(PYTHON) -m venv --clear .venv-codec
	.venv-codec/bin/pip --disable-pip-version-check -q install .
	@echo "$$(du -sm .venv-codec | cut -f1) MB"
	.venv-codec/bin/pip --disable-pip-version-check -q install pytest hypothesis
	OMP_NUM_THREADS=1 .venv-codec/bin/python -m pytest -m "not slow" -o pythonpath=tests

smoke: setup ## run the whole pipeline on tiny numbers in a temporary copy
	python -m pytest -m smoke

check: setup ## lint, format, types, import contracts, params.yaml
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python -m linocut.lab.config.params --check

format: setup ## sort imports and format
	ruff check --fix --quiet . || true
	ruff format .

params: setup ## compose src/linocut/lab/conf/ into params.yaml
	python -m linocut.lab.config.params --write

deps: setup ## write the modules that each stage imports into dvc.yaml
	python tests/import_closure.py --write

readme: setup ## write the tables of README.md that come from other files
	python tests/readme_blocks.py --write

define keep_report
	mkdir -p docs/reports/$(1)/plots
	run=$$(git for-each-ref --sort=-committerdate --count=1 --format='%(refname)' 'refs/exps/**/$(1)') \
	&& for file in report.md metrics.json cells.json plots/rd.png plots/bd_rate.png; do \
		git show $$run:reports/$$file > docs/reports/$(1)/$$file || exit 1; done
endef

# What a checkout of its own lacks: without the compiled kernel it would take ten times as long.
COPIED = $$(ls src/linocut/entropy/_kernel*.so 2>/dev/null | sed 's/^/--copy-paths /')
EFFORT ?= 2
ARCH ?= cae
SHIPPED = -S profile=shipped -S arch=$(ARCH) -S loss=$(if $(filter cae,$(ARCH)),shipped,all) -S code.effort=$(EFFORT)
VARIANT = $(if $(filter-out cae,$(ARCH)),-$(ARCH))$(if $(filter-out 2,$(EFFORT)),-effort-$(EFFORT))
kodak: checkout identity setup ## measure the shipped codecs on Kodak, beside this checkout: docs/reports/kodak/; EFFORT=3 for smaller files, ARCH=cae2018 for others
	dvc exp run --temp $(COPIED) --force --name kodak$(VARIANT) $(SHIPPED) -S data=kodak
	$(call keep_report,kodak$(VARIANT))

NAME ?= $(notdir $(abspath $(FOLDER)))$(VARIANT)
pictures: checkout identity setup ## measure them on the pictures of FOLDER: docs/reports/NAME/; EFFORT and ARCH as above
	test -d "$(FOLDER)" || { echo "FOLDER=$(FOLDER) is not a folder of pictures"; exit 1; }
	dvc exp run --temp $(COPIED) --force --name $(NAME) $(SHIPPED) -S 'data.test=$(abspath $(FOLDER))'
	$(call keep_report,$(NAME))

verify: setup ## derive the numbers of README and report again from files and pictures
	python -m benchmarks.verify

ui: setup ## open MLflow on the runs (http://127.0.0.1:5000)
	python -m linocut.lab.tracking.sync
	mlflow server --backend-store-uri sqlite:///$(CURDIR)/.mlflow/mlflow.db \
	  --artifacts-destination $(CURDIR)/.mlflow/artifacts --workers 1

exps: setup ## table of the DVC experiments
	dvc exp show --only-changed --hide-workspace \
	  --drop 'artifacts|stages|src|data/|rate_over|lowest.ssim$$|^arch|^loss|Executor|State|files'

seeds: setup ## compare the cells over the seeds of all experiments
	@python -m linocut.lab.report.experiments

bench: setup ## measure speed: training throughput, compress and decompress
	python -m benchmarks

lock: setup ## pin what is installed now into requirements.lock
	@sed -n '/^#/p' requirements.lock > requirements.lock.new
	@$(BIN)/pip --disable-pip-version-check list --format=freeze --exclude linocut --exclude pip 2>/dev/null \
	  | sed 's/+cpu$$//' >> requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## remove caches and training states; artifacts/ and DVC's cache stay
	rm -rf .state .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dvc_plots
	find src stages tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
