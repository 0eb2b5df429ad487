"""The figures of a benchmark: medians, comparisons, and shares of the device's ceilings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mlx_qwen3.bench.cost import Cost


@dataclass(frozen=True)
class TableRow:
    """One row of the table: a metric's values by engine, and the share of the ceiling their median reaches.

    Lower is better for seconds and GB, higher for tokens per second.
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
        """How many times better the first engine is than the second; None if there is one engine."""
        if len(self.values) < 2:
            return None
        first, second = self.medians.values()
        return first / second if self.unit == "tok/s" else second / first


@dataclass(frozen=True)
class Result:
    """The measured runs.

    Attributes:
        setup: What was measured, where, and with which packages.
        ceilings: The device's `bandwidth` (bytes per second) and `arithmetic` (FLOP per second).
        cost: The least work a token takes.
        runs: Engine -> its runs, as `worker.measure` returns them, with `start_s` added. Ours comes first.
    """

    setup: dict[str, Any]
    ceilings: dict[str, float]
    cost: Cost
    runs: dict[str, list[dict[str, Any]]]

    @property
    def num_cases(self) -> int:
        return len(next(iter(self.runs.values()))[0]["cases"])

    def case(self, index: int, engine: str | None = None) -> dict[str, Any]:
        """Case `index` as `engine` (None: ours) ran it."""
        case: dict[str, Any] = self.runs[engine or next(iter(self.runs))][0]["cases"][index]
        return case

    def case_values(self, index: int, metric: str) -> dict[str, list[float]]:
        """A metric of one case in every run, by engine."""
        return {engine: [run["cases"][index][metric] for run in runs] for engine, runs in self.runs.items()}

    def _uncut_values(self, index: int, metric: str) -> dict[str, list[float]]:
        """`case_values` of the engines that ran the whole prompt, for a metric that depends on its length."""
        length = self.case(index)["prompt"]
        return {
            engine: values
            for engine, values in self.case_values(index, metric).items()
            if self.case(index, engine)["prompt_tokens"] == length
        }

    def run_values(self, metric: str) -> dict[str, list[float]]:
        """A metric of every run as a whole, by engine."""
        return {engine: [run[metric] for run in runs] for engine, runs in self.runs.items()}

    def decode_share(self, index: int, engine: str) -> float:
        """The share of the bandwidth ceiling that reading weights and KV cache amounts to."""
        case = self.case(index, engine)
        context = case["prompt_tokens"] + case["decode_tokens"] / 2
        steps = median(self.case_values(index, "decode_tok_s")[engine]) / case["batch"]
        return float(steps * self.cost.decode_bytes(context, case["batch"]) / self.ceilings["bandwidth"])

    def prefill_share(self, index: int, engine: str) -> float:
        """The share of the arithmetic ceiling that the FLOP of prefill amount to."""
        rate = median(self.case_values(index, "prefill_tok_s")[engine])
        prompt = self.case(index, engine)["prompt_tokens"]
        return rate * self.cost.prefill_flops(prompt) / self.ceilings["arithmetic"]

    def rows(self) -> Iterator[TableRow]:
        """The rows of the table."""
        yield TableRow("from command to first token", "s", self.run_values("start_s"), {})
        yield TableRow("load", "s", self.run_values("load_s"), {})
        for index in range(self.num_cases):
            case = self.case(index)
            texts = "" if case["batch"] == 1 else f"{case['batch']} x "
            what = f"{texts}{case['prompt']:,} tokens"
            yield TableRow(f"TTFT, {what}", "s", self._uncut_values(index, "ttft_s"), {})
            for phase, shares in (("prefill", self.prefill_share), ("decode", self.decode_share)):
                values = self.case_values(index, f"{phase}_tok_s")
                name = f"{phase}, {what}" if phase == "prefill" else f"{phase} after {what}"
                yield TableRow(name, "tok/s", values, {engine: shares(index, engine) for engine in values})
            yield TableRow(
                f"peak memory, {what}", "GB", _gigabytes(self._uncut_values(index, "peak_bytes")), {}
            )
        yield TableRow("peak resident memory", "GB", _gigabytes(self.run_values("resident_bytes")), {})

    def words(self) -> Iterator[str]:
        """What was found, in sentences: of the first engine, and how the second compares."""
        ours, *others = self.runs
        for index in range(self.num_cases):
            case = self.case(index)
            texts = "" if case["batch"] == 1 else f"{case['batch']} texts at once: "
            prefill, decode = (
                median(self.case_values(index, f"{phase}_tok_s")[ours]) for phase in ("prefill", "decode")
            )
            seconds = case["prompt"] * case["batch"] / prefill
            share = self.decode_share(index, ours)
            yield (
                f"{texts}a prompt of {case['prompt']:,} tokens is read in {_short(seconds)} s, then "
                f"{_short(decode)} tokens come each second, about {_short(0.75 * decode)} words of English: "
                f"{share:.0%} of what this memory allows."
            )
            for other in others:
                rates = [
                    median(values[ours]) / median(values[other])
                    for phase in ("prefill", "decode")
                    if other in (values := self.case_values(index, f"{phase}_tok_s"))
                ]
                if len(rates) == 2:
                    yield f"Beside {other}: {_faster(rates[0])} at reading, {_faster(rates[1])} at writing."

    def cuts(self) -> Iterator[str]:
        """One line for each case that an engine too slow for it ran shorter than asked."""
        for engine in self.runs:
            for index in range(self.num_cases):
                case = self.case(index, engine)
                asked = self.setup["work"]["tokens"]
                if case["prompt_tokens"] < case["prompt"] or case["decode_tokens"] < asked:
                    prompt = f"{case['prompt_tokens']:,} of {case['prompt']:,} prompt tokens"
                    texts = f" {case['batch']} times" if case["batch"] > 1 else ""
                    answer = f"{case['decode_tokens']} of {asked} answer tokens"
                    yield f"{engine} was given{texts} {prompt}, {answer}"

    def to_json(self) -> str:
        """All fields as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def _short(value: float) -> str:
    return f"{value:,.2g}" if value < 10 else f"{value:,.0f}"


def _faster(ratio: float) -> str:
    """A ratio of speeds in words."""
    if 0.97 < ratio < 1.03:
        return "as fast"
    return f"{ratio:.2g} times as fast"


def _gigabytes(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {engine: [value / 1e9 for value in in_bytes] for engine, in_bytes in values.items()}
