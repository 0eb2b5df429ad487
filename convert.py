"""`python convert.py`: the same as `mlx-qwen3 convert`."""

import sys

from mlx_qwen3.cli.app import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
