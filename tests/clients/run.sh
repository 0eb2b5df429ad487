#!/usr/bin/env bash
# Runs real clients of the server against the demo, once they are installed in FOLDER (build/clients by default).
# Fails if one of them fails. What cannot be installed in INSTALL_SECONDS (600 by default; 0: nothing is installed), or
# has not begun after SECONDS (600 by default), is skipped, and said.
#   tests/clients/run.sh [FOLDER] [SECONDS] [INSTALL_SECONDS] [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$(mkdir -p "${1:-build/clients}" && cd "${1:-build/clients}" && pwd)"
export MLX_QWEN3_CLIENTS_SECONDS="${2:-600}"

[ "${3:-600}" = 0 ] || tests/clients/install.sh "$folder" "${3:-600}"
[ ! -e "$folder/has-python" ] || export MLX_QWEN3_CLIENTS_PYTHON="$folder/venv/bin/python"
[ ! -e "$folder/has-node" ] || export MLX_QWEN3_CLIENTS_NODE="$folder"
exec .venv/bin/python -m pytest tests/clients -rs -n logical --maxprocesses 4 "${@:4}"
