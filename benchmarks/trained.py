"""Trains a full-precision checkpoint, for what rounding costs shows on trained weights only.

    python -m benchmarks.trained --out models/trained-2m --from-demo --minutes 5
    python -m benchmarks.trained --out models/trained-7m --hidden 320 --layers 6 --minutes 25

The first goes on from the demo's 4-bit weights without rounding, so that they leave the 4-bit grid; the
second starts from nothing. Both learn the demo's data (`training/`). Writes bf16 weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import mlx_qwen3

import mlx.core as mx  # isort: skip
from mlx.utils import tree_flatten, tree_unflatten

from mlx_qwen3.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model
from training import train
from training.data import TEMPLATE_FILE

NEVER = 2.0  # share of the time after which weights are rounded while they are trained
RATE_FROM_DEMO = 0.2  # of the full learning rate: the weights are good already


def from_demo() -> dict[str, Any]:
    """The demo's parameters in fp32."""
    model = mlx_qwen3.load_model("demo")
    weights: dict[str, mx.array] = {}
    for path, module in model.named_modules():
        if hasattr(module, "scales"):
            packed = (module.weight, module.scales, module.biases)
            weights[f"{path}.weight"] = mx.dequantize(*packed, group_size=64, bits=4).astype(mx.float32)
        elif "weight" in module and not module.children():
            weights[f"{path}.weight"] = module.weight.astype(mx.float32)
    return tree_unflatten(list(weights.items()))


def write(parameters: dict[str, Any], settings: dict[str, Any], folder: Path) -> None:
    """A folder as published ones are: bf16 weights, config, tokenizer, template."""
    model = Model(ModelConfig.from_dict(settings))
    model.update(parameters)
    weights = {name: value.astype(mx.bfloat16) for name, value in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    shutil.copy(TEMPLATE_FILE, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--from-demo", action="store_true", help="go on from the demo's weights")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--intermediate", type=int, default=0, help="by default 2.75 times hidden")
    options = parser.parse_args()
    train.SETTINGS |= {
        "hidden_size": options.hidden,
        "num_hidden_layers": options.layers,
        "intermediate_size": options.intermediate or round(options.hidden * 2.75 / 128) * 128,
    }
    work = options.out / "training"
    work.mkdir(parents=True, exist_ok=True)
    if options.from_demo:
        train.MUON_RATE *= RATE_FROM_DEMO
        train.ADAMW_RATE *= RATE_FROM_DEMO
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(Path(mlx_qwen3.__file__).parent / "demo" / name, work)
    trainer = train.Trainer(work, options.minutes * 60, NEVER, 3072)
    if options.from_demo and trainer.progress.step == 0:
        trainer.parameters = from_demo()
        trainer.optimizer.init(trainer.parameters)
    trainer.run()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(work / name, options.out)
    write(trainer.parameters, train.SETTINGS, options.out)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
