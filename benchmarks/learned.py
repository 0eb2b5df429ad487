"""mlx-lm's GPTQ, AWQ and DWQ beside our calibrated quantization, on the same text.

    python -m benchmarks.learned --model models/draft

All use 4 bits in groups of 64, for the embedding too, so that the sizes are equal. The methods are mlx-lm's
own functions with the defaults of its command line, except for text and size. DWQ starts from plain
rounding (at its default learning rate and at 1e-4) and from our calibrated weights. Measured as in
`benchmarks.recipes`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx_qwen3

import mlx.core as mx  # isort: skip
import mlx.optimizers as optimizers
from mlx_lm.quant.awq import AWQ_MODEL_CONFIGS, awq_quantize
from mlx_lm.quant.dwq import dwq_quantize
from mlx_lm.quant.gptq import gptq_quantize
from mlx_lm.utils import load_model, save_model

from benchmarks.recipes import EVALUATION_SEEDS, compare, evaluation, table, write_calibration
from mlx_qwen3.conversion import plan

BITS, GROUP_SIZE = 4, 64
SETTINGS = {"bits": BITS, "group_size": GROUP_SIZE, "mode": "affine"}
DWQ_RATE = 1e-6  # mlx_lm.dwq's default
Row = dict[str, Any]


def full(source: Path) -> Any:
    model, _ = load_model(source)
    model.set_dtype(mx.float32)  # 16-bit products are slow on a CPU
    return model


def gptq(source: Path, windows: mx.array, _work: Path) -> Any:
    return gptq_quantize(full(source), windows, BITS, GROUP_SIZE, BITS, GROUP_SIZE)[0]


def awq(source: Path, windows: mx.array, _work: Path) -> Any:
    model = full(source)
    awq_quantize(model, windows, AWQ_MODEL_CONFIGS["qwen3"], GROUP_SIZE, BITS, GROUP_SIZE, BITS)
    return model


def dwq(rate: float, **options: Any) -> Callable[[Path, mx.array, Path], Any]:
    """DWQ, started from what `convert(**options)` makes."""

    def learn(source: Path, windows: mx.array, work: Path) -> Any:
        mlx_qwen3.convert(source, work / "student", force=True, **options)
        student, teacher = full(work / "student"), full(source)
        rows: Any = windows.tolist()
        texts = [(row, 0) for row in rows]
        dwq_quantize(
            student,
            lambda batch, _index, split: teacher(batch),  # noqa: ARG005
            optimizers.Adam(learning_rate=rate, bias_correction=True),
            texts[4:],
            texts[:4],
            batch_size=4,
            max_seq_length=windows.shape[1] + 1,
            seed=0,
            dtype=mx.float32,
        )
        return student

    return learn


def measure(name: str, model: Any, source: Path, data: list[Any], work: Path, seconds: float) -> Row:
    """Save as mlx-lm's command does, load, and compare with the reference."""
    model.set_dtype(mx.bfloat16)
    save_model(work / "out", model)
    config = json.loads((source / "config.json").read_text()) | {"quantization": SETTINGS}
    (work / "out" / "config.json").write_text(json.dumps(config))
    loaded = mlx_qwen3.load_model(work / "out")
    results = [compare(loaded, part) for part in data]
    size = sum(file.stat().st_size for file in (work / "out").glob("*.safetensors"))
    shutil.rmtree(work / "out")
    row = {key: sum(result[key] for result in results) / len(results) for key in results[0]}
    bits = size * 8 / loaded.args.num_parameters
    spread = [result["kl"] for result in results]
    return {
        "name": name,
        "options": {"bits": BITS},
        **row,
        "bits_per_weight": bits,
        "seconds": seconds,
        "kl_all": spread,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a dense full-precision checkpoint")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        text = write_calibration(work / "calibration.jsonl")
        calibration = plan(options.model, calibrate=text).calibration
        assert calibration is not None
        data = [evaluation(options.model, mlx_qwen3.load_model(options.model), s) for s in EVALUATION_SEEDS]
        methods = {
            "plain": lambda source, _windows, work: plain(source, work),
            "searched, calibrated": lambda source, _windows, work: plain(source, work, calibrate=text),
            "mlx-lm GPTQ": gptq,
            "mlx-lm AWQ": awq,
            "mlx-lm DWQ of plain": dwq(DWQ_RATE),
            "mlx-lm DWQ of plain, rate 1e-4": dwq(1e-4),
            "mlx-lm DWQ of ours, rate 1e-4": dwq(1e-4, calibrate=text),
        }
        for name, method in methods.items():
            started = time.monotonic()
            model = method(options.model, mx.array(calibration.windows), work)
            seconds = time.monotonic() - started
            rows.append(measure(name, model, options.model, data, work, seconds))
            print(f"{name}: {rows[-1]['kl']:.5f} in {seconds:.0f} s", file=sys.stderr)
    print(table(rows))


def plain(source: Path, work: Path, **options: Any) -> Any:
    mlx_qwen3.convert(source, work / "ours", force=True, **options)
    return load_model(work / "ours")[0]


if __name__ == "__main__":
    main()
