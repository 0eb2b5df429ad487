#!/usr/bin/env bash
# Installs real clients of the server in FOLDER, in SECONDS at most. What cannot be installed is said, and is no error.
#   tests/clients/install.sh FOLDER SECONDS
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$(mkdir -p "$1" && cd "$1" && pwd)"
seconds="$2"
python=.venv/bin/python

within() {
  if command -v timeout >/dev/null; then timeout --kill-after=5 "$seconds" "$@"; else "$@"; fi
}

install_python() {
  [ -x "$folder/venv/bin/pip" ] || within "$python" -m venv --clear "$folder/venv" || return 1
  if [ -x .venv/bin/uv ]; then
    within .venv/bin/uv pip install --quiet --python "$folder/venv/bin/python" -r tests/clients/requirements.txt
  else
    within "$folder/venv/bin/python" -m pip install -qq --no-compile --disable-pip-version-check \
      -r tests/clients/requirements.txt
  fi
}

install_node() {
  command -v npm >/dev/null || return 1
  cp tests/clients/package.json "$folder/"
  (cd "$folder" && within npm install --no-audit --no-fund --loglevel=error >/dev/null) || return 1
  # Claude Code comes with a script that puts its program in place.
  (cd "$folder/node_modules/@anthropic-ai/claude-code" && node install.cjs >/dev/null) || true
}

rm -f "$folder"/has-*
log="$folder/install"
(install_python >"$log-python.log" 2>&1 && touch "$folder/has-python") ||
  echo "skipped: no clients for Python in $seconds seconds ($log-python.log)" >&2 &
(install_node >"$log-node.log" 2>&1 && touch "$folder/has-node") ||
  echo "skipped: no clients for Node in $seconds seconds ($log-node.log)" >&2 &
wait
