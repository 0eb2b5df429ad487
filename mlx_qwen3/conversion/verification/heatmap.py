"""A page that shows where the error is: a row for each layer, a column for each matrix. One HTML file,
which needs nothing else."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from pathlib import Path

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
# From little to much error, evenly bright steps that read the same to colour-blind eyes (viridis, reversed).
COLORS = ((253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84))
DARK_FROM = 0.45  # from here on, text on a colour is white


def check_report_path(path: Path) -> None:
    """Raise ConversionError unless a report can be written at `path`."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConversionError(f"{path}: the report is a web page; give it a name that ends in .html")
    if not path.parent.is_dir():
        raise ConversionError(f"{path.parent} is not a folder; name one that exists for the report")


def write_report(path: Path, title: str, verification: Verification) -> None:
    """Write the page at `path`. Raises ConversionError where that cannot be done."""
    try:
        write_atomically(path, report(title, verification), mode=0o644)
    except OSError as error:
        raise ConversionError(f"{path} could not be written: {error.strerror or error}") from error


def report(title: str, verification: Verification) -> str:
    """The page's HTML."""
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
            f"nats a token, the same likeliest token for <b>{probe.top1:.1%}</b>."
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
    """Rows are the layers, with what is outside of them above and below."""
    rows: dict[str, dict[str, TensorCheck]] = {}
    for tensor in tensors:
        match = LAYER.fullmatch(tensor.name)
        row = match[1] if match else tensor.name.removeprefix("model.").removesuffix(".weight")
        rows.setdefault(row, {})[_column(match[2]) if match else ""] = tensor
    found = {column for row in rows.values() for column in row} - {""}
    columns = [name for name in ORDER if name in found] + sorted(found - set(ORDER))
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join(_row(label, cells, columns, span) for label, cells in rows.items())
    return f"<table><thead><tr><th>layer</th>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _column(module: str) -> str:
    """`self_attn.q_proj` -> `q_proj`; `mlp.switch_mlp.up_proj` too goes by its last name."""
    return module.rpartition(".")[2]


def _row(label: str, cells: dict[str, TensorCheck], columns: list[str], span: tuple[float, float]) -> str:
    if "" in cells:  # outside of the layers: one matrix
        return f"<tr><th>{html.escape(label)}</th>{_cell(cells[''], span, len(columns))}</tr>"
    found = "".join(_cell(cells[column], span) if column in cells else "<td></td>" for column in columns)
    return f"<tr><th>{html.escape(label)}</th>{found}</tr>"


def _cell(tensor: TensorCheck, span: tuple[float, float], width: int = 1) -> str:
    share = _share(tensor.error, span)
    background = "rgb({}, {}, {})".format(*color(share))
    bits = f" <small>{tensor.bits}</small>" if tensor.bits is not None else ""
    hint = f"{tensor.name}: {tensor.error:.4%}, plain rounding {tensor.rounding_error:.4%}"
    shade = "light" if share > DARK_FROM else "dark"
    shape = f'class="{shade}" colspan="{max(width, 1)}" style="background: {background}"'
    return f'<td {shape} title="{html.escape(hint)}">{tensor.error:.2%}{bits}</td>'


def _share(error: float, span: tuple[float, float]) -> float:
    """Where an error lies between the smallest and the largest, on a logarithmic scale."""
    low, high = span
    if error <= low or low == high:
        return 0.0
    return math.log(error / low) / math.log(high / low)


def color(share: float) -> tuple[int, int, int]:
    """The colour at `share`, 0 to 1, of the way along COLORS."""
    place = min(max(share, 0.0), 1.0) * (len(COLORS) - 1)
    first = min(int(place), len(COLORS) - 2)
    weight = place - first
    red, green, blue = (
        round(a + (b - a) * weight) for a, b in zip(COLORS[first], COLORS[first + 1], strict=True)
    )
    return red, green, blue
