"""One rank of the tests of failures: generates until something ends it; rank 0 says when it has begun."""

from __future__ import annotations

import sys

from mlx_qwen3 import Engine
from mlx_qwen3.errors import Qwen3Error


def main(folder: str, mode: str, phase: str) -> None:
    with Engine(folder, distributed=mode, draft_model=None) as engine:
        try:
            if phase == "prefill":
                print("begun", flush=True)
                while True:
                    # Prompts that share nothing, so that each is fed whole.
                    print(
                        len(
                            engine.complete(
                                f"{engine.stats().generated} " + "abc " * 800, sampling={"max_tokens": 1}
                            ).text
                        )
                    )
            said = 0
            while True:  # each answer ends at the end of the context
                for _ in engine.complete("abc", sampling={"max_tokens": 100_000, "logit_bias": {}}):
                    said += 1
                    if said == 4:
                        print("begun", flush=True)
        except Qwen3Error as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
