"""Thousands of requests of mixed kinds over two ranks: is the memory of both flat, and are they in step?

`benchmarks.distributed --requests` runs it.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPORT = 500  # requests between two lines
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}


class Mix:
    """Requests of one engine, of random kinds. `counts` says how many of each."""

    def __init__(self, engine: Any, folder: Path):
        self.counts: Counter[str] = Counter()
        self._engine, self._saved, self._draw = engine, folder / "saved.json", random.Random(0)
        self._kinds: list[Callable[[], None]] = [
            self._completions,
            self._completions,
            self._conversations,
            self._choices,
            self._cancelled,
            self._session,
            self._resumed,
            self._schema,
            self._vectors,
        ]

    def one(self) -> None:
        """Some requests of one kind."""
        self._draw.choice(self._kinds)()

    def _texts(self) -> list[str]:
        return ["abc " * self._draw.randrange(1, 30) for _ in range(self._draw.randrange(1, 12))]

    def _sampling(self) -> dict[str, Any]:
        draw = self._draw
        sampling: dict[str, Any] = {"max_tokens": draw.randrange(1, 6)}
        if draw.random() < 0.5:
            sampling |= {"temperature": 0.9, "seed": draw.randrange(99), "top_p": 0.9}
        return sampling

    def _batch(self, kind: str, prompts: list[Any], stop_at: int | None = None, **options: Any) -> None:
        run = self._engine.generate_batch(prompts, **options)
        for number, result in enumerate(run):
            assert result.error is None, result.error
            if number == stop_at:
                run.cancel()
        self.counts[kind] += len(prompts)

    def _completions(self) -> None:
        from mlx_qwen3.engine.batch import BatchRequest

        self._batch(
            "completions", [BatchRequest(prompt=text, sampling=self._sampling()) for text in self._texts()]
        )

    def _conversations(self) -> None:
        from mlx_qwen3.engine.batch import BatchRequest

        self._batch(
            "conversations",
            [
                BatchRequest(
                    messages=[{"role": "user", "content": text}],
                    sampling=self._sampling(),
                    thinking=self._draw.random() < 0.5,
                    thinking_budget=2,
                )
                for text in self._texts()
            ],
        )

    def _choices(self) -> None:
        from mlx_qwen3.engine.batch import BatchRequest

        text = self._texts()[0]
        self._batch("several choices", [BatchRequest(prompt=text, sampling={"max_tokens": 3}, n=3)])

    def _cancelled(self) -> None:
        self._batch("cancelled", self._texts(), stop_at=self._draw.randrange(6), sampling={"max_tokens": 9})

    def _session(self) -> None:
        session = self._engine.session(thinking=self._draw.random() < 0.5, sampling={"max_tokens": 6})
        session.ask("x " * self._draw.randrange(1, 50))
        for number, _ in enumerate(session.send("more")):
            if number == 2 and self._draw.random() < 0.5:
                session.cancel()
        self.counts["turns"] += 2

    def _resumed(self) -> None:
        from mlx_qwen3 import Session

        session = self._engine.session(thinking=False, sampling={"max_tokens": 4})
        session.ask("y " * self._draw.randrange(1, 50))
        session.save(self._saved)
        Session.load(self._engine, self._saved).ask("and then?")
        self.counts["saved and resumed"] += 2

    def _schema(self) -> None:
        session = self._engine.session(thinking=False, sampling={"max_tokens": 40})
        session.ask("a number", SCHEMA)
        self.counts["schemas"] += 1

    def _vectors(self) -> None:
        texts = self._texts()
        self._engine.embed(texts)
        self.counts["embeddings"] += len(texts)


def worker(folder: str, mode: str, count: int) -> None:
    """Rank 0 makes requests; every few hundred it prints its memory, and how far all ranks are."""
    import psutil

    from mlx_qwen3 import Engine

    with Engine(folder, distributed=mode) as engine:
        mix, process, reported = Mix(engine, Path(folder).parent), psutil.Process(), 0
        while (done := sum(mix.counts.values())) < count:
            mix.one()
            if done // REPORT > reported:
                reported = done // REPORT
                print(
                    json.dumps(
                        {
                            "done": done,
                            "resident": process.memory_info().rss,
                            "is_in_step": _is_in_step(engine),
                            "step": engine.ranks,
                        }
                    ),
                    flush=True,
                )
        print(json.dumps({"kinds": mix.counts}), flush=True)


def _is_in_step(engine: Any) -> bool:
    """Whether the other rank has done every pass that it was told, in a moment."""
    followers = engine._ranks._followers
    for _ in range(100):
        if followers.waiting_since() is None:
            return True
        time.sleep(0.05)
    return False


def run(count: int, mode: str, start: Callable[[int, list[str]], list[Any]]) -> bool:
    """Make the requests, and print memory and steps. start: starts ranks with arguments."""
    sys.path.insert(0, str(ROOT / "tests"))
    import psutil
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import DENSE, write_checkpoint

    folder = Path(tempfile.mkdtemp()) / "m"
    write_checkpoint(folder, DENSE | {"vocab_size": 320, "max_position_embeddings": 4096})
    write_byte_tokenizer(folder)
    # Prefixes that have been fed are kept as far as memory allows: with this much, that is reached soon.
    os.environ.setdefault("MLX_QWEN3_MEMORY", "120MB")
    ranks = start(2, ["--requests-worker", str(folder), mode, str(count)])
    traces: list[list[float]] = [[], []]
    is_right = True
    for line in ranks[0].stdout:
        told = json.loads(line)
        if "kinds" in told:
            print(told["kinds"])
            continue
        resident = [told["resident"] / 1e6, psutil.Process(ranks[1].pid).memory_info().rss / 1e6]
        for trace, value in zip(traces, resident, strict=True):
            trace.append(value)
        is_right &= told["is_in_step"]
        print(
            f"{told['done']:,} requests: {resident[0]:.0f} and {resident[1]:.0f} MB, step {told['step']}"
            f"{'' if told['is_in_step'] else ' NOT IN STEP'}",
            flush=True,
        )
    for rank in ranks:
        _, error = rank.communicate()
        is_right &= rank.returncode == 0
        if rank.returncode or error:
            print(f"exit code {rank.returncode}: {error[-500:]}")
    for number, trace in enumerate(traces):
        half = len(trace) // 2
        if half:
            middle, end = max(trace[half // 2 : half]), max(trace[half:])
            print(
                f"rank {number}: at most {middle:.0f} MB in the second quarter, {end:.0f} in the second half"
            )
    return is_right
