"""Quality of each recipe: KL to the full-precision model, perplexity and agreement, on held-out text.

    python -m benchmarks.trained --out models/trained-2m --tokens 1e6
    python -m benchmarks.recipes --model models/trained-2m --plot docs/recipes.png

Converts the checkpoint by each recipe, calibrated on conversations of one seed, and measures it on those of
others. Only the assistant's tokens count. Prints a table, and draws size against loss.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import mlx_qwen3

import mlx.core as mx  # isort: skip
from tokenizers import Tokenizer

from training.data import LATE, Batch, batches, sample_conversation, tool_messages

CALIBRATION_SEED = 7_000
EVALUATION_SEEDS = (8_001, 8_002, 8_003)
BATCHES = 3
TOKENS_PER_BATCH = 3_000
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A line of the table: its name, the options of `convert`, and whether it is calibrated.

    as_large_as: the name of the case whose bits per weight are the target.
    """

    name: str
    options: Row
    calibrated: bool = False
    as_large_as: str | None = None

    @property
    def bits(self) -> int:
        return int(self.options.get("bits", 4))


def cases(bits: int) -> list[Case]:
    """The cases at `bits`."""
    return [
        Case("plain", {"bits": bits}),
        Case("searched", {"bits": bits, "recipe": "searched"}),
        Case("searched, calibrated", {"bits": bits, "recipe": "searched"}, calibrated=True),
        Case("mixed", {"bits": bits, "recipe": "mixed"}),
        Case("mixed, calibrated", {"bits": bits, "recipe": "mixed"}, calibrated=True),
        Case("target of plain's size", {"bits": bits}, calibrated=True, as_large_as="plain"),
        Case("target of mixed's size", {"bits": bits}, calibrated=True, as_large_as="mixed"),
    ]


def conversations(seed: int, count: int) -> Iterator[Row]:
    """Conversations in the format of a calibration file."""
    rng = random.Random(seed)
    for _ in range(count):
        conversation = sample_conversation(rng, LATE)
        messages = []
        for turn in conversation.turns:
            messages.append({"role": "user", "content": turn.question})
            if turn.tool:
                messages += tool_messages(turn.tool)
            messages.append({"role": "assistant", "content": turn.answer, "reasoning_content": turn.thought})
        yield {"messages": messages, "tools": conversation.tools or None}


def write_calibration(path: Path, seed: int = CALIBRATION_SEED, count: int = 400) -> Path:
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in conversations(seed, count)))
    return path


def evaluation(folder: Path, reference: Any, seed: int) -> list[tuple[Batch, mx.array]]:
    """Held-out batches of the training mix, each with the reference's log probabilities."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    source = batches(tokenizer, seed, TOKENS_PER_BATCH, lambda: LATE, pool=256)
    chosen = [next(source) for _ in range(BATCHES)]
    expected = [logprobs(reference, batch) for batch in chosen]
    mx.eval(expected)
    return list(zip(chosen, expected, strict=True))


def logprobs(model: Any, batch: Batch) -> mx.array:
    """Log probabilities at the learned positions (N, V)."""
    logits = model(mx.array(batch.inputs))
    chosen = logits.reshape(-1, logits.shape[-1])[mx.array(batch.learned)].astype(mx.float32)
    return chosen - mx.logsumexp(chosen, axis=-1, keepdims=True)


def compare(model: Any, data: list[tuple[Batch, mx.array]]) -> Row:
    """KL(reference || model) in nats per token, both perplexities, and the share of equal top tokens.

    data: batches, each with the reference's log probabilities.
    """
    kl = loss = full_loss = agree = 0.0
    count = 0
    for batch, theirs in data:
        ours = logprobs(model, batch)
        targets = mx.array(batch.targets)[:, None]
        kl += float((mx.exp(theirs) * (theirs - ours)).sum())
        loss -= float(mx.take_along_axis(ours, targets, axis=-1).sum())
        full_loss -= float(mx.take_along_axis(theirs, targets, axis=-1).sum())
        agree += int((mx.argmax(ours, axis=-1) == mx.argmax(theirs, axis=-1)).sum())
        count += targets.size
    return {
        "kl": kl / count,
        "perplexity": math.exp(loss / count),
        "full_perplexity": math.exp(full_loss / count),
        "agreement": agree / count,
    }


def measure(
    case: Case, source: Path, calibration: Path, data: list[Any], work: Path, sizes: dict[str, float]
) -> Row:
    """Convert by `case`, and compare with the source on every evaluation set.

    sizes: bits per weight of earlier cases, by name.
    """
    options = case.options | ({"calibrate": calibration} if case.calibrated else {})
    if case.as_large_as:
        options["target_bpw"] = sizes[case.as_large_as]
    report = mlx_qwen3.convert(source, work / "out", force=True, **options)
    model = mlx_qwen3.load_model(work / "out")
    results = [compare(model, part) for part in data]
    shutil.rmtree(work / "out")
    measured = {key: mean(result[key] for result in results) for key in results[0]}
    spread = [result["kl"] for result in results]
    size = {"bits_per_weight": report.bits_per_weight, "seconds": report.seconds}
    return {**asdict(case), **measured, **size, "kl_all": spread}


def table(rows: list[Row]) -> str:
    """A table in Markdown. KL is compared with plain rounding to the same bits."""
    plain = {row["options"]["bits"]: row["kl"] for row in rows if row["name"] == "plain"}
    lines = ["| recipe | bits a weight | KL (of 3 sets) | against plain | perplexity | same top token |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        kl, change = row["kl"], row["kl"] / plain[row["options"]["bits"]] - 1
        spread = " / ".join(f"{value:.4f}" for value in row["kl_all"])
        cells = [f"{row['name']}, {row['options']['bits']} bits", f"{row['bits_per_weight']:.2f}"]
        cells += [f"{kl:.4f} ({spread})", f"{change:+.0%}", f"{row['perplexity']:.4f}"]
        lines.append(f"| {' | '.join(cells)} | {row['agreement']:.2%} |")
    lines.append(f"| full precision | 16 | 0 | | {rows[0]['full_perplexity']:.4f} | |")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path, title: str) -> None:
    """Draw size against loss, with a line for each recipe."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:  # target sizes form one line
        lines.setdefault(row["name"].partition(" of ")[0], []).append((row["bits_per_weight"], row["kl"]))
    for name, points in lines.items():
        points.sort()
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(
        xlabel="bits per weight", ylabel="KL to full precision (nats a token)", yscale="log", title=title
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a full-precision checkpoint")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4, 5, 6])
    parser.add_argument("--only", default="", help="cases whose name contains this, and plain")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reference = mlx_qwen3.load_model(options.model)
    data = [evaluation(options.model, reference, seed) for seed in EVALUATION_SEEDS]
    rows = []
    with tempfile.TemporaryDirectory() as work:
        calibration = write_calibration(Path(work) / "calibration.jsonl")
        sizes: dict[str, float] = {}
        for case in [case for bits in options.bits for case in cases(bits)]:
            if case.name in ("plain", "mixed") or options.only in case.name:
                rows.append(measure(case, options.model, calibration, data, Path(work), sizes))
                sizes[case.name] = rows[-1]["bits_per_weight"]
                print(f"{case.name} {case.bits}: {rows[-1]['kl']:.5f}", file=sys.stderr)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    if options.plot:
        plot(rows, options.plot, options.model.name)


if __name__ == "__main__":
    main()
