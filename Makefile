# `make chat` and `make test` set up all they need in .venv; nothing else on the machine is touched.
# What they install is said on stderr, so that stdout holds the chat's answer alone.

VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; to compile all of them takes half of the set-up.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile
# What MLX computes with on Linux: cpu or cuda. A Mac needs neither, and ignores it.
BACKEND ?= cpu
# The first Python that is new enough; `make PYTHON=... chat` picks another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: chat test check clean

chat: $(VENV)/.installed
	@$(BIN)/python chat.py --model demo $(ARGS)

# A process more than there are cores, since tests wait for programs they start; at most four, for the memory.
test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -n "$$($(BIN)/python -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')" \
		--dist worksteal $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

clean:
	rm -rf $(VENV)

# A folder without a working pip is what a set-up leaves that was stopped. It is made again.
$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then echo "error: Python 3.11 or later is needed; none was found" >&2; exit 1; fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "setting up $(VENV) (once) ..." >&2; $(PYTHON) -m venv --clear $(VENV) >&2; }
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	@$(INSTALL) -e '.[$(BACKEND)]' >&2
	@$(BIN)/python -c 'import mlx_qwen3.cli.chat.repl'  # which, and the next, compiles what a chat uses
	@$(BIN)/python chat.py --model demo --no-think -p hi </dev/null >/dev/null
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.installed
	@$(INSTALL) -e '.[$(BACKEND),test]' >&2
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed-test
	@$(INSTALL) -e '.[$(BACKEND),test,dev,plot]' >&2
	@touch $@
