#!/usr/bin/env bash
# Installs real clients of the server in FOLDER (build/clients by default) and runs them against the demo.
# What cannot be installed, or not in SECONDS (600 by default), is skipped, and said. Fails if a client fails.
#   tests/clients/run.sh [FOLDER] [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$(mkdir -p "${1:-build/clients}" && cd "${1:-build/clients}" && pwd)"
seconds="${2:-600}"
python=.venv/bin/python

within() {
  if command -v timeout >/dev/null; then timeout --kill-after=5 "$seconds" "$@"; else "$@"; fi
}

install_python() {
  [ -x "$folder/venv/bin/pip" ] || within "$python" -m venv --clear "$folder/venv" || return 1
  if [ -x .venv/bin/uv ]; then
    within .venv/bin/uv pip install --quiet --python "$folder/venv/bin/python" -r tests/clients/requirements.txt
  else
    within "$folder/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
      -r tests/clients/requirements.txt
  fi
}

install_node() {
  command -v npm >/dev/null || return 1
  cp tests/clients/package.json "$folder/"
  (cd "$folder" && within npm install --no-audit --no-fund --loglevel=error) || return 1
  # Claude Code comes with a script that puts its program in place.
  (cd "$folder/node_modules/@anthropic-ai/claude-code" && node install.cjs >/dev/null) || true
}

rm -f "$folder"/has-*
(install_python && touch "$folder/has-python") || echo "skipped: no clients for Python in $seconds seconds" >&2 &
(install_node && touch "$folder/has-node") || echo "skipped: no clients for Node in $seconds seconds" >&2 &
wait
[ ! -e "$folder/has-python" ] || export MLX_QWEN3_CLIENTS_PYTHON="$folder/venv/bin/python"
[ ! -e "$folder/has-node" ] || export MLX_QWEN3_CLIENTS_NODE="$folder"

code=0
within "$python" -m pytest tests/clients -rs -n logical --maxprocesses 4 || code=$?
if [ "$code" = 124 ]; then
  echo "skipped: the clients were not all run in $seconds seconds" >&2
  code=0
fi
exit "$code"
