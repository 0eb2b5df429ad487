"""Measures a model that is spread over several machines, through one engine over all of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mlx_qwen3.bench.measure import Workload
from mlx_qwen3.distributed.plan import MODES
from mlx_qwen3.distributed.speed import Traffic, traffic
from mlx_qwen3.engine.completion import Completion
from mlx_qwen3.engine.engine import Engine
from mlx_qwen3.errors import BenchmarkError
from mlx_qwen3.events import Done, Stats
from mlx_qwen3.generation.params import SamplingParams

MOST_IDS = 1000  # ids of ordinary tokens, which come first in Qwen3's vocabulary
WARM_UP = (16, 2)  # tokens of a first prompt and answer, which compile kernels


@dataclass(frozen=True)
class CaseSpeed:
    """What one case came to: tokens a second, of all texts of the batch together."""

    prompt: int
    batch: int
    prefill: float
    decode: float


@dataclass(frozen=True)
class MachinesResult:
    """What was measured, and what each machine has to send for a token, by count.

    Attributes:
        mode: How the model is split.
        size: Machines.
        cases: The speeds.
        sent: For each mode, what the busiest machine sends for one token of one text.
    """

    mode: str
    size: int
    cases: list[CaseSpeed]
    sent: dict[str, Traffic]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """What was found, in words."""
        yield f"{self.size} machines, split by {self.mode}:"
        for case in self.cases:
            texts = "one text" if case.batch == 1 else f"{case.batch} texts together"
            yield (
                f"  {texts}, prompts of {case.prompt:,} tokens: {case.prefill:,.4g} tokens/s read, "
                f"{case.decode:,.4g} tokens/s written"
            )
        alone = [case.decode for case in self.cases if case.batch == 1]
        took = f"took {1000 / median(alone):,.3g} ms, in which" if alone else "was one in which"
        yield f"A token of one text {took} each machine sent {_said(self.sent[self.mode])}."
        for mode, sent in self.sent.items():
            if mode != self.mode:
                yield f"Split by {mode} it would send {_said(sent)}."


def run_on_machines(
    engine: Engine, workload: Workload, on_run: Callable[[int], None] | None = None
) -> MachinesResult:
    """Measure what `engine` does over several machines: medians of `workload.repeat` runs.

    on_run: called with the number of each run before it starts. Raises BenchmarkError, EngineError.
    """
    mode, ranks = engine.options["distributed"], engine.ranks
    if mode is None or ranks is None:
        raise BenchmarkError("the engine is on one machine; give distributed to Engine")
    longest = max(workload.prompts) + workload.tokens
    if longest > engine.context:
        raise BenchmarkError(
            f"prompt and answer would have {longest:,} tokens, there is memory for {engine.context:,}"
        )
    draw = random.Random(0)
    _run_case(engine, draw, *WARM_UP, batch=1)
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for number in range(workload.repeat):
        if on_run is not None:
            on_run(number)
        for prompt, batch, tokens in workload.cases:
            found.setdefault((prompt, batch), []).append(_run_case(engine, draw, prompt, tokens, batch))
    cases = [
        CaseSpeed(prompt, batch, median(run[0] for run in runs), median(run[1] for run in runs))
        for (prompt, batch), runs in found.items()
    ]
    size, itemsize = len(ranks) + 1, engine.call(lambda: engine.model.model.norm.weight.dtype.size)
    sent = {each: traffic(engine.config, each, size, itemsize=itemsize) for each in MODES}
    return MachinesResult(mode, size, cases, sent)


def _run_case(
    engine: Engine, draw: random.Random, prompt: int, tokens: int, batch: int
) -> tuple[float, float]:
    """Tokens a second of prefill and of decoding."""
    params = SamplingParams(temperature=0, max_tokens=tokens, min_tokens=tokens)
    most = min(MOST_IDS, engine.config.vocab_size)
    prompts = [[draw.randrange(most) for _ in range(prompt)] for _ in range(batch)]

    def one(ids: list[int]) -> Stats:
        *_, last = Completion(engine, ids, params).events()
        assert isinstance(last, Done)  # it comes last
        return last.stats

    with ThreadPoolExecutor(batch) as pool:
        stats: list[Any] = list(pool.map(one, prompts))
    return sum(each.prompt_tokens_per_second for each in stats), sum(each.tokens_per_second for each in stats)


def _said(sent: Traffic) -> str:
    size = f"{sent.nbytes / 1000:,.3g} kB"
    return f"{size} in {sent.steps:,} steps that wait for each other"
