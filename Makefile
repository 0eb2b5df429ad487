# `make chat` and `make test` set up all they need in .venv; nothing else on the machine is touched.
# What they install is said on stderr, so that stdout holds the chat's answer alone.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
# uv installs in a fifth of pip's time. Where it cannot be had, or cannot do it, pip does.
# 1: extras, 2: flags for uv
install = @{ $(PIP) install uv && $(UV) $(2) -e '.[$(1)]'; } >/dev/null 2>&1 || $(PIP) install -e '.[$(1)]' >&2
comma := ,
# What MLX computes with on Linux: cpu or cuda. A Mac needs neither, and ignores it.
BACKEND ?= cpu
# The first Python that is new enough; `make PYTHON=... chat` picks another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: chat test check clean

chat: $(VENV)/.installed
	@$(BIN)/python chat.py --model demo $(ARGS)

# A process for each core, at most four: more would not fit the memory of a small machine.
# Modules are kept compiled: a test that starts a program is a third faster for it.
test: $(VENV)/.installed-test
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

clean:
	rm -rf $(VENV)

# A virtual environment whose Python is gone, as after an upgrade of it, is made again.
ifneq ($(wildcard $(VENV)/.made),)
ifneq ($(shell $(BIN)/python -c 'print(1)' 2>/dev/null),1)
$(shell rm -f $(VENV)/.made $(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-dev)
endif
endif

# A folder without a working pip is what a set-up leaves that was stopped. It is made again.
$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then echo "error: Python 3.11 or later is needed; none was found" >&2; exit 1; fi
	@$(PIP) --version >/dev/null 2>&1 || { \
		echo "setting up $(VENV) (once) ..." >&2; $(PYTHON) -m venv --clear $(VENV) >&2; }
	@touch $@

# Compiles only what a chat uses, Python's modules and the kernels.
$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(call install,$(BACKEND))
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import mlx_qwen3.cli.chat.repl'
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python chat.py --model demo --no-think -p hi </dev/null >/dev/null
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.installed
	$(call install,$(BACKEND)$(comma)test,--compile-bytecode)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed-test
	$(call install,$(BACKEND)$(comma)test$(comma)dev$(comma)plot,--compile-bytecode)
	@touch $@
