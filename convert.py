"""`python convert.py`: the same as `mlx-qwen3 convert`."""

import sys

try:
    from mlx_qwen3.cli.app import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; run `make chat` once, then .venv/bin/python convert.py")

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
