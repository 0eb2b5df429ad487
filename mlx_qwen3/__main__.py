"""`python -m mlx_qwen3` is `mlx-qwen3`."""

import sys

try:
    from mlx_qwen3.cli.app import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; `pip install .` here, or `make chat`, installs it")

if __name__ == "__main__":
    main()
