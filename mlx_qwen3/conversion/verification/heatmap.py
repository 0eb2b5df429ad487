"""Writes a heat map of the errors as one HTML file: a row for each layer, a column for each matrix."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from pathlib import Path

from mlx_qwen3.conversion.options import PATHS, check_type
from mlx_qwen3.conversion.verification.compare import TensorCheck
from mlx_qwen3.conversion.verification.verify import Verification
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.files import write_atomically

LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")
ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate", "gate_proj", "up_proj", "down_proj")
STYLE = """
:root { color-scheme: light dark; --text: #1d1d1f; --quiet: #6e6e73; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --text: #f5f5f7; --quiet: #98989d; --page: #1c1c1e; } }
body { font: 14px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 2.5rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; } p { margin: 0 0 1rem; } .quiet { color: var(--quiet); }
table { border-collapse: separate; border-spacing: 2px; font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--quiet); padding: 0 .5rem; text-align: right; white-space: nowrap; }
thead th { text-align: center; }
td { min-width: 4.2rem; padding: .15rem .4rem; text-align: center; border-radius: 3px; color: #111; }
td small { opacity: .65; } td.light { color: #fff; }
.scale { display: inline-block; width: 14rem; height: .8rem; border-radius: 3px; vertical-align: middle;
  margin: 0 .5rem; }
"""
# From small to large errors: viridis reversed, which colour-blind readers see as even steps too.
COLORS = ((253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84))
DARK_FROM = 0.45  # from this fraction on, text on a colour is white


def check_report_path(path: str | Path) -> None:
    """Check that a report can be written, before a conversion starts.

    Args:
        path: The HTML file to write.

    Raises:
        ConversionError: The name does not end in .html, or its folder does not exist.
    """
    check_type("path", path, PATHS, "a path")
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConversionError(f"{path}: the report is a web page; give it a name that ends in .html")
    if not path.parent.is_dir():
        raise ConversionError(f"{path.parent} is not a folder; name one that exists for the report")


def write_report(path: str | Path, title: str, verification: Verification) -> None:
    """Write a heat map of the errors by layer and matrix.

    Args:
        path: The HTML file to write.
        title: The name of the model.
        verification: The errors, as `verify` returns them for a checkpoint with its source.

    Raises:
        ConversionError: The file cannot be written.
    """
    check_type("path", path, PATHS, "a path")
    try:
        write_atomically(Path(path), _page(title, verification), mode=0o644)
    except OSError as error:
        raise ConversionError(f"{path} could not be written: {error.strerror or error}") from error


def _page(title: str, verification: Verification) -> str:
    quantized = [tensor for tensor in verification.tensors if tensor.bits is not None]
    shown = quantized or [tensor for tensor in verification.tensors if tensor.error > 0]
    span = _span(shown)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}: error by matrix</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{html.escape(title)}: error by layer and matrix</h1>",
        f"<p>{_summary(verification)}</p>",
        _legend(span) if shown else '<p class="quiet">No number differs from the original.</p>',
        _table(shown, span),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _span(tensors: Iterable[TensorCheck]) -> tuple[float, float]:
    errors = [tensor.error for tensor in tensors if tensor.error > 0] or [1.0]
    return min(errors), max(errors)


def _summary(verification: Verification) -> str:
    text = (
        f"Relative error, length of the difference over length of the original: "
        f"<b>{verification.error:.2%}</b> over all weights."
    )
    if (probe := verification.probe) is not None:
        text += (
            f" For {probe.tokens} tokens of a text: divergence (KL) of predictions <b>{probe.kl:.4f}</b> "
            f"nats per token, the same most likely token for <b>{probe.top1:.1%}</b>."
        )
    return text


def _legend(span: tuple[float, float]) -> str:
    colors = ", ".join(f"rgb{color}" for color in COLORS)
    return (
        f'<p class="quiet">{span[0]:.2%}<span class="scale" '
        f'style="background: linear-gradient(90deg, {colors})"></span>{span[1]:.2%} &nbsp; '
        "(logarithmic; small: bits per weight)</p>"
    )


def _table(tensors: Iterable[TensorCheck], span: tuple[float, float]) -> str:
    """A row for each layer. Matrices outside the layers have rows of their own, above and below."""
    rows: dict[str, dict[str, TensorCheck]] = {}
    for tensor in tensors:
        match = LAYER.fullmatch(tensor.name)
        row = match[1] if match else tensor.name.removeprefix("model.").removesuffix(".weight")
        # The last name: `q_proj` of `self_attn.q_proj`, `up_proj` of `mlp.switch_mlp.up_proj`.
        rows.setdefault(row, {})[match[2].rpartition(".")[2] if match else ""] = tensor
    names = {column for row in rows.values() for column in row} - {""}
    columns = [name for name in ORDER if name in names] + sorted(names - set(ORDER))
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join(_row(label, cells, columns, span) for label, cells in rows.items())
    return f"<table><thead><tr><th>layer</th>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _row(label: str, cells: dict[str, TensorCheck], columns: list[str], span: tuple[float, float]) -> str:
    if "" in cells:  # one matrix outside the layers
        return f"<tr><th>{html.escape(label)}</th>{_cell(cells[''], span, len(columns))}</tr>"
    row = "".join(_cell(cells[column], span) if column in cells else "<td></td>" for column in columns)
    return f"<tr><th>{html.escape(label)}</th>{row}</tr>"


def _cell(tensor: TensorCheck, span: tuple[float, float], width: int = 1) -> str:
    fraction = _fraction(tensor.error, span)
    background = "rgb({}, {}, {})".format(*_color(fraction))
    bits = f" <small>{tensor.bits}</small>" if tensor.bits is not None else ""
    hint = f"{tensor.name}: {tensor.error:.4%}, plain rounding {tensor.rounding_error:.4%}"
    shade = "light" if fraction > DARK_FROM else "dark"
    shape = f'class="{shade}" colspan="{max(width, 1)}" style="background: {background}"'
    return f'<td {shape} title="{html.escape(hint)}">{tensor.error:.2%}{bits}</td>'


def _fraction(error: float, span: tuple[float, float]) -> float:
    """Where an error lies between the smallest (0) and the largest (1), on a logarithmic scale."""
    low, high = span
    if error <= low or low == high:
        return 0.0
    return math.log(error / low) / math.log(high / low)


def _color(fraction: float) -> tuple[int, int, int]:
    """The colour at `fraction` (0 to 1) of the way along COLORS."""
    place = min(max(fraction, 0.0), 1.0) * (len(COLORS) - 1)
    first = min(int(place), len(COLORS) - 2)
    weight = place - first
    red, green, blue = (
        round(a + (b - a) * weight) for a, b in zip(COLORS[first], COLORS[first + 1], strict=True)
    )
    return red, green, blue
