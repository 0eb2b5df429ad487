"""`python chat.py`: the same as `mlx-qwen3 chat`."""

import sys

from mlx_qwen3.cli.app import main

if __name__ == "__main__":
    main(["chat", *sys.argv[1:]])
