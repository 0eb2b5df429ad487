"""One rank of the tests: makes an engine over all ranks; rank 0 runs the scenario named and prints JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from distributed import scenarios

from mlx_qwen3 import Engine


def main(folder: str, mode: str, scenario: str, options: str, *arguments: str) -> None:
    chosen: dict[str, Any] = json.loads(options)
    with Engine(folder, distributed=mode, **chosen) as engine:
        print(json.dumps(getattr(scenarios, scenario)(engine, *arguments)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
