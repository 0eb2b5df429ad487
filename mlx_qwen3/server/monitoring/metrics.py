"""Metrics: what the server counts, in Prometheus's text form."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

from mlx_qwen3.events import Stats

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts values up to each of `bounds`."""

    def __init__(self, bounds: tuple[float, ...]):
        self._bounds, self._counts = bounds, [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        total = 0
        for bound, count in zip([*self._bounds, "+Inf"], self._counts, strict=True):
            total += count
            yield f"{name}_bucket{_labels((*labels, ('le', str(bound))))} {total}"
        yield f"{name}_sum{_labels(labels)} {self._sum:.6f}"
        yield f"{name}_count{_labels(labels)} {total}"


class Metrics:
    """Counts since the start. For the event loop's thread."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """By API and HTTP status."""
        self.disconnects = 0
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._finished: Counter[tuple[str, str]] = Counter()
        self._first_token: dict[str, Histogram] = {}
        self._per_token: dict[str, Histogram] = {}
        self._queued: dict[str, Histogram] = {}

    def request(self, api: str, status: int) -> None:
        """Count an answer."""
        self.requests[api, status] += 1

    def done(self, model: str, stats: Stats) -> None:
        """Count a generation."""
        self._tokens[model, "prompt"] += stats.prompt_tokens
        self._tokens[model, "cached"] += stats.cached_tokens
        self._tokens[model, "generated"] += stats.generated_tokens
        self._finished[model, stats.finish_reason] += 1
        self._first_token.setdefault(model, Histogram(SECONDS)).add(stats.ttft)
        self._queued.setdefault(model, Histogram(SECONDS)).add(stats.queue_time)
        if stats.time_per_output_token:
            self._per_token.setdefault(model, Histogram(TOKEN_SECONDS)).add(stats.time_per_output_token)

    @property
    def generated(self) -> int:
        """Tokens generated, of all models."""
        return sum(count for (_, kind), count in self._tokens.items() if kind == "generated")

    def text(self, gauges: Mapping[str, tuple[str, Mapping[Labels, float]]]) -> str:
        """All of it. gauges: name -> (help, values by labels) of what is measured now."""
        return "\n".join([*self._counters(), *self._histograms(), *_gauges(gauges), ""])

    def _counters(self) -> Iterator[str]:
        yield from _head("mlx_qwen3_requests_total", "counter", "HTTP answers by API and status.")
        for (api, status), count in sorted(self.requests.items()):
            yield f"mlx_qwen3_requests_total{_labels((('api', api), ('status', str(status))))} {count}"
        yield from _head("mlx_qwen3_disconnects_total", "counter", "Clients that left before the end.")
        yield f"mlx_qwen3_disconnects_total {self.disconnects}"
        yield from _head(
            "mlx_qwen3_tokens_total", "counter", "Tokens by kind; cached ones are part of prompt."
        )
        for (model, kind), count in sorted(self._tokens.items()):
            yield f"mlx_qwen3_tokens_total{_labels((('model', model), ('kind', kind)))} {count}"
        yield from _head("mlx_qwen3_generations_total", "counter", "Generations by the reason they ended.")
        for (model, reason), count in sorted(self._finished.items()):
            yield f"mlx_qwen3_generations_total{_labels((('model', model), ('reason', reason)))} {count}"

    def _histograms(self) -> Iterator[str]:
        for name, meaning, histograms in (
            ("time_to_first_token", "From the request to its first token.", self._first_token),
            ("time_per_output_token", "Between two tokens of one text.", self._per_token),
            ("queue_time", "From the request until the model began with it.", self._queued),
        ):
            full = f"mlx_qwen3_{name}_seconds"
            yield from _head(full, "histogram", meaning)
            for model, histogram in sorted(histograms.items()):
                yield from histogram.lines(full, (("model", model),))


def _gauges(gauges: Mapping[str, tuple[str, Mapping[Labels, float]]]) -> Iterator[str]:
    for name, (meaning, values) in gauges.items():
        yield from _head(f"mlx_qwen3_{name}", "gauge", meaning)
        for labels, value in values.items():
            yield f"mlx_qwen3_{name}{_labels(labels)} {value:g}"


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
