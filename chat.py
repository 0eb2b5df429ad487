"""`python chat.py`: the same as `mlx-qwen3 chat`."""

import sys

try:
    from mlx_qwen3.cli.app import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; run `make chat` once, then .venv/bin/python chat.py")

if __name__ == "__main__":
    main(["chat", *sys.argv[1:]])
