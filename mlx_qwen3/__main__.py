"""`python -m mlx_qwen3` is `mlx-qwen3`."""

from mlx_qwen3.cli.app import main

if __name__ == "__main__":
    main()
