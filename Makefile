# make watch   set up what is needed, then film an agent that comes with the project: runs/watch.gif
# make dream   set up what is needed, then play inside the imagination of that agent, in the browser
# make train   set up what is needed, then train on Atari Breakout for a night; run it again to go on
# make play    the same on MinAtar's Breakout until the agent plays well, then film it (an hour)
# make docs    set up what is needed, then build the site with the reference: build/docs/
# make test    set up what is needed, then run the tests, two files at a time (ARGS="-n 0": one)
# make test-legacy  the same for the packages gym and atari-py, in an environment of their own
#
# Variables: LOGDIR (where the run goes), AGENT (what watch and dream open: an agent that comes with
# the project, or the directory of a run), ARGS (more flags), PYTHON (3.10, 3.11 or 3.12), EXTRAS
# (extras of setup.py), VENV (where all is installed).
# For example: make train LOGDIR=runs/pong ARGS="pong --seed 1"   (the block pong, on top of night)

SHELL := /bin/bash
VENV := .venv
LOGDIR := runs/breakout
ARGS :=
PYTHON := python3.11 python3.12 python3.10 python3 python
comma := ,
EXTRAS := classic,dev,dream,minatar,test$(if $(shell command -v nvidia-smi),$(comma)cuda)

RUN := $(VENV)/bin/python
READY := $(VENV)/ready

# Not where `train` goes: another game.
play: LOGDIR := runs/minatar

.PHONY: watch dream train play test test-slow test-legacy faults learn lint docs setup

# The agent that `watch` films and `dream` opens: one of videos/agents/, or the directory of a run.
AGENT := breakout

watch: setup
	@mkdir -p runs
	$(RUN) -m dreamerv2.render --logdir $(AGENT) --out runs/watch.gif $(ARGS)

dream: setup
	$(RUN) -m dreamerv2.dream --logdir $(AGENT) $(ARGS)

train: setup
	$(RUN) -m dreamerv2.train --logdir $(LOGDIR) --configs night $(ARGS)

play: setup
	$(RUN) -m dreamerv2.train --logdir $(LOGDIR) --configs minatar $(ARGS)
	$(RUN) -m dreamerv2.render --logdir $(LOGDIR) --out $(LOGDIR)/play.gif

# A file stays in one process, so that its tests share what they set up.
test: setup
	$(RUN) -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: setup
	$(RUN) -m pytest -m slow $(ARGS)

# Breaks real runs on purpose (docs/reliability.md); ARGS="--scale 0.1" for a tenth of the trials.
faults: setup
	$(RUN) tests/faults/run.py $(ARGS)

# gym and atari-py are no longer maintained: they stay out of the environment of all else. atari-py
# is compiled; that takes a C++ compiler, CMake and zlib (Debian: build-essential, cmake, zlib1g-dev).
test-legacy: VENV := .venv-legacy
test-legacy: EXTRAS := legacy,test
test-legacy:
	@$(MAKE) setup VENV=$(VENV) EXTRAS=$(EXTRAS)
	$(VENV)/bin/python -m pytest tests/test_legacy.py tests/test_envs_atari.py tests/test_envs_gym.py $(ARGS)

# Faithful, and able to learn: either can be broken alone (docs/results.md).
learn: setup
	$(RUN) -m dreamerv2.parity tests/golden/{atari,dmc,crafter}.npz
	$(RUN) -m pytest -m learn $(ARGS)

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# The site in build/docs/: every page of docs/, and the reference from the docstrings.
docs: setup
	@$(RUN) -c "import mkdocs, mkdocstrings" 2>/dev/null || $(RUN) -m pip install -qq \
	  --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	$(RUN) -m mkdocs build --quiet --strict

setup: $(READY)

SUITABLE := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 13))

# The stamp is written last, so that a setup that was interrupted is taken up again.
$(READY): setup.py pyproject.toml constraints.txt
	@$(RUN) -c "" 2>/dev/null || { \
	  for python in $(PYTHON); do \
	    if "$$python" -c "$(SUITABLE)" >/dev/null 2>&1; then \
	      exec "$$python" -m venv --clear $(VENV); \
	    fi; \
	  done; \
	  echo "No Python 3.10, 3.11 or 3.12 with the module venv among: $(PYTHON)." \
	    "Install one (Debian, Ubuntu: python3 and python3-venv)," \
	    "or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	}
	@echo "Installing into $(VENV) with $$($(RUN) --version) (once; this takes minutes)"
	@$(RUN) -m pip install -qq --disable-pip-version-check \
	  --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@
