"""What was measured, its medians, and what share of the possible they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mlx_qwen3.bench.cost import Cost


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of each engine, its extremes and its share of the ceiling.

    Seconds and bytes are better lower, tokens a second higher.
    """

    name: str
    unit: str
    values: dict[str, list[float]]
    shares: dict[str, float]

    @property
    def medians(self) -> dict[str, float]:
        return {engine: median(values) for engine, values in self.values.items()}

    @property
    def ratio(self) -> float | None:
        """How many times better the first engine is than the second; None where there is one."""
        if len(self.values) < 2:
            return None
        first, second = self.medians.values()
        return first / second if self.unit == "tok/s" else second / first


@dataclass(frozen=True)
class Result:
    """Runs of each engine, as `worker.measure` returns them with `start_s`; the first engine is ours."""

    setup: dict[str, Any]
    ceilings: dict[str, float]
    cost: Cost
    runs: dict[str, list[dict[str, Any]]]

    @property
    def num_cases(self) -> int:
        return len(next(iter(self.runs.values()))[0]["cases"])

    def case(self, index: int, engine: str | None = None) -> dict[str, Any]:
        """What case `index` was, and what `engine` (ours) was given of it."""
        case: dict[str, Any] = self.runs[engine or next(iter(self.runs))][0]["cases"][index]
        return case

    def of_case(self, index: int, metric: str) -> dict[str, list[float]]:
        """A metric of every run, by engine."""
        return {engine: [run["cases"][index][metric] for run in runs] for engine, runs in self.runs.items()}

    def _whole(self, index: int, metric: str) -> dict[str, list[float]]:
        """A metric that depends on the prompt's length, of the engines that were given all of it."""
        found = self.of_case(index, metric).items()
        asked = self.case(index)["prompt"]
        return {
            engine: values for engine, values in found if self.case(index, engine)["prompt_tokens"] == asked
        }

    def of_run(self, metric: str) -> dict[str, list[float]]:
        """A metric of whole runs, by engine."""
        return {engine: [run[metric] for run in runs] for engine, runs in self.runs.items()}

    def decode_share(self, index: int, engine: str) -> float:
        """Share of the measured bandwidth that reading weights and cache, as stored, amounts to."""
        case = self.case(index, engine)
        context = case["prompt_tokens"] + case["decode_tokens"] / 2
        steps = median(self.of_case(index, "decode_tok_s")[engine]) / case["batch"]
        return float(steps * self.cost.decode_bytes(context, case["batch"]) / self.ceilings["bandwidth"])

    def prefill_share(self, index: int, engine: str) -> float:
        """Share of the measured arithmetic that a prompt's multiplications amount to."""
        rate = median(self.of_case(index, "prefill_tok_s")[engine])
        prompt = self.case(index, engine)["prompt_tokens"]
        return rate * self.cost.prefill_flops(prompt) / self.ceilings["arithmetic"]

    def rows(self) -> Iterator[Row]:
        """The table, line by line."""
        yield Row("from command to first token", "s", self.of_run("start_s"), {})
        yield Row("load", "s", self.of_run("load_s"), {})
        for index in range(self.num_cases):
            case = self.case(index)
            texts = "" if case["batch"] == 1 else f"{case['batch']} x "
            what = f"{texts}{case['prompt']:,} tokens"
            yield Row(f"TTFT, {what}", "s", self._whole(index, "ttft_s"), {})
            for phase, shares in (("prefill", self.prefill_share), ("decode", self.decode_share)):
                values = self.of_case(index, f"{phase}_tok_s")
                name = f"{phase}, {what}" if phase == "prefill" else f"{phase} after {what}"
                yield Row(name, "tok/s", values, {engine: shares(index, engine) for engine in values})
            yield Row(f"peak memory, {what}", "GB", _gigabytes(self._whole(index, "peak_bytes")), {})
        yield Row("resident memory at most", "GB", _gigabytes(self.of_run("resident_bytes")), {})

    def cuts(self) -> Iterator[str]:
        """What an engine was given where that was less than asked for."""
        for engine in self.runs:
            for index in range(self.num_cases):
                case = self.case(index, engine)
                asked = self.setup["work"]["tokens"]
                if case["prompt_tokens"] < case["prompt"] or case["decode_tokens"] < asked:
                    given = f"{case['prompt_tokens']:,} of {case['prompt']:,} prompt tokens"
                    texts = f" {case['batch']} times" if case["batch"] > 1 else ""
                    answer = f"{case['decode_tokens']} of {asked} answer tokens"
                    yield f"{engine} was given{texts} {given}, {answer}"

    def to_json(self) -> str:
        """Everything, medians apart, as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def _gigabytes(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {engine: [value / 1e9 for value in found] for engine, found in values.items()}
