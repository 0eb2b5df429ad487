"""Draws a result: prefill, decoding and startup of each engine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mlx_qwen3.bench.result import Result
from mlx_qwen3.errors import BenchmarkError, install_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"mlx-qwen3": "#6f42c1", "mlx-lm": "#b0b0b0"}
BAR, GAP = 0.38, 0.42
SUFFIXES = (".png", ".svg", ".pdf")


def check_plot_path(path: Path) -> None:
    """Raise BenchmarkError if `write_plot` could not write to `path`."""
    if path.suffix not in SUFFIXES:
        raise BenchmarkError(f"a plot is one of {', '.join(SUFFIXES)}, not {path}")
    if not path.absolute().parent.is_dir():
        raise BenchmarkError(f"there is no folder {path.absolute().parent} for the plot")
    if find_spec("matplotlib") is None:
        raise BenchmarkError(f"plots need matplotlib: {install_command('plot')}")


def write_plot(result: Result, path: Path) -> None:
    """Draw `result` to a .png, .svg or .pdf file. Raises BenchmarkError as `check_plot_path` does."""
    check_plot_path(path)
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=(1, 1, 0.8), layout="constrained")
    _cases(axes[0], result, "prefill", "Prefill, tokens per second")
    _cases(axes[1], result, "decode", "Decode, tokens per second")
    _bars(
        axes[2],
        [
            ("first token\nof the process", result.run_values("start_s")),
            ("load", result.run_values("load_s")),
        ],
    )
    axes[2].set_title("Seconds, lower is better")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper right", ncols=2, frameon=False)
    figure.suptitle(f"{result.setup['checkpoint']} on {result.setup['device']}", fontweight="bold")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"the plot could not be written to {path}: {error}") from error
    finally:
        plt.close(figure)


def _cases(axes: Axes, result: Result, phase: str, title: str) -> None:
    groups = []
    for index in range(result.num_cases):
        case = result.case(index)
        name = f"{case['prompt']:,}" if case["batch"] == 1 else f"{case['batch']} x {case['prompt']:,}"
        groups.append((name, result.case_values(index, f"{phase}_tok_s")))
    _bars(axes, groups)
    axes.set_title(title)
    axes.set_xlabel("prompt tokens")
    for index in range(result.num_cases):
        _ceiling(axes, result, phase, index)


def _ceiling(axes: Axes, result: Result, phase: str, index: int) -> None:
    """Draw a dashed line at the device's ceiling, unless it is far above all bars."""
    engine = next(iter(result.runs))
    share = (result.prefill_share if phase == "prefill" else result.decode_share)(index, engine)
    limit = median(result.case_values(index, f"{phase}_tok_s")[engine]) / share
    if limit < 2.5 * axes.get_ylim()[1]:
        axes.plot([index - 0.45, index + 0.45], [limit, limit], "--", color="#444444", linewidth=1)
        text = "bandwidth ceiling" if phase == "decode" else "arithmetic ceiling"
        axes.annotate(text, (index, limit), ha="center", va="bottom", fontsize=7, color="#444444")
        axes.set_ylim(top=max(axes.get_ylim()[1], limit * 1.15))


def _bars(axes: Axes, groups: list[tuple[str, dict[str, list[float]]]]) -> None:
    for position, (_, values) in enumerate(groups):
        for number, (engine, measured) in enumerate(values.items()):
            x = position + (number - (len(values) - 1) / 2) * GAP
            label = engine if position == 0 else None
            bars = axes.bar(x, median(measured), BAR, color=COLOURS.get(engine), label=label)
            axes.bar_label(bars, fmt=_short, padding=2, fontsize=8)
    axes.set_xticks(range(len(groups)), [name for name, _ in groups])
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.2)


def _short(value: Any) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
