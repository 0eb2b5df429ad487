#!/usr/bin/env bash
# Installs real clients of the server in FOLDER (build/clients by default) and runs them against the demo.
# What cannot be installed is skipped, with a reason.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$(mkdir -p "${1:-build/clients}" && cd "${1:-build/clients}" && pwd)"
python=.venv/bin/python

[ -x "$folder/venv/bin/python" ] || "$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt ||
  echo "the Python clients cannot be installed" >&2
if command -v npm >/dev/null; then
  cp tests/clients/package.json "$folder/"
  (cd "$folder" && npm install --no-audit --no-fund --loglevel=error) || echo "the Node clients cannot be installed" >&2
  # Claude Code comes with a script that puts its program in place.
  (cd "$folder/node_modules/@anthropic-ai/claude-code" 2>/dev/null && node install.cjs) || true
fi
MLX_QWEN3_CLIENTS_PYTHON="$folder/venv/bin/python" MLX_QWEN3_CLIENTS_NODE="$folder" \
  "$python" -m pytest tests/clients -v -rs
