"""Draw a training log: `python -m training.plot LOG.csv OUT.png`."""

import argparse
import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Row = dict[str, float | None]


def read_log(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [
            {key: float(value) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def draw(rows: list[Row], out: Path) -> None:
    """Loss above, accuracy on held-out additions below, over the tokens seen; 4-bit training is shaded."""
    figure, (loss, accuracy) = plt.subplots(2, 1, sharex=True, figsize=(8, 6))
    tokens = [row["tokens"] / 1e6 for row in rows]
    loss.plot(tokens, [row["loss"] for row in rows], linewidth=1)
    loss.set_yscale("log")
    loss.set_ylabel("loss per learned token")
    checks = [(row["tokens"] / 1e6, 100 * row["accuracy"]) for row in rows if row["accuracy"] is not None]
    accuracy.plot(*zip(*checks, strict=True), marker="o", markersize=3)
    accuracy.set_ylim(-3, 103)
    accuracy.set_ylabel("held-out additions right, %")
    accuracy.set_xlabel("million tokens")
    for axis in (loss, accuracy):
        axis.grid(alpha=0.3)
        rounding = [bool(row["rounding"]) for row in rows]
        span = axis.get_xaxis_transform()
        axis.fill_between(
            tokens, 0, 1, rounding, transform=span, alpha=0.15, label="weights rounded to 4 bits"
        )
    loss.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(read_log(arguments.log), arguments.out)


if __name__ == "__main__":
    main()
