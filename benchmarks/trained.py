"""Makes full-precision checkpoints to measure conversions on: only trained weights show the cost of rounding.

    python -m benchmarks.trained --out models/trained --tokens 5e6    # the demo, trained on without rounding
    python -m benchmarks.trained --out models/draft --run RUN        # a run of training/ before it rounds

The demo's weights are on a 4-bit grid. Further training on its own data, without rounding, moves them off
it. RUN is the folder of `training.train` or `training.draft` while the last column of its log.csv is 0,
which means that nothing is rounded yet. Writes bf16 weights, as published models have.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx.utils import tree_flatten, tree_unflatten

import mlx_qwen3
from mlx_qwen3.checkpoint.locate import DEMO_FOLDER
from mlx_qwen3.model.config import ModelConfig, read_json
from mlx_qwen3.model.qwen3 import Model
from training import train
from training.data import TEMPLATE_FILE

NEVER = 2.0  # share of the tokens after which training rounds the weights: never
RATE = 0.5  # of the full learning rate: the weights are trained already
TOKENS_PER_STEP = 1024
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def demo_parameters() -> dict[str, mx.array]:
    """The demo's parameters in fp32."""
    weights: dict[str, mx.array] = {}
    for path, module in mlx_qwen3.load_model("demo").named_modules():
        if hasattr(module, "scales"):
            packed = (module.weight, module.scales, module.biases)
            weights[f"{path}.weight"] = mx.dequantize(*packed, group_size=64, bits=4).astype(mx.float32)
        elif "weight" in module and not module.children():
            weights[f"{path}.weight"] = module.weight.astype(mx.float32)
    return weights


def train_on(folder: Path, tokens: int) -> dict[str, mx.array]:
    """The demo's parameters after `tokens` of further training, with checkpoints in `folder`."""
    for name in TOKENIZER:
        shutil.copy(DEMO_FOLDER / name, folder)
    train.MUON_RATE *= RATE
    train.ADAMW_RATE *= RATE
    trainer = train.Trainer(train.Plan(folder, tokens, TOKENS_PER_STEP, NEVER, workers=1, device="cpu"))
    if trainer.progress.step == 0:
        for name, weight in demo_parameters().items():
            trainer.parameters[name].data.copy_(torch.from_numpy(np.array(weight)))
    trainer.run()
    return {name: mx.array(weight.detach().numpy()) for name, weight in trainer.parameters.items()}


def write(parameters: dict[str, mx.array], settings: dict[str, Any], tokenizer: Path, folder: Path) -> None:
    """Write a checkpoint as published: bf16 weights, config, tokenizer, template."""
    model = Model(ModelConfig.from_dict(settings))
    model.update(tree_unflatten(list(parameters.items())))
    weights = {name: value.astype(mx.bfloat16) for name, value in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, folder)
    shutil.copy(TEMPLATE_FILE, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=5e6)
    parser.add_argument("--run", type=Path, help="a run of training/ to take the parameters of")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.run:
        parameters: Any = mx.load(str(options.run / "parameters.safetensors"))
        stored = read_json(options.run / "checkpoint" / "config.json")
        settings = {key: value for key, value in stored.items() if not key.startswith("quantization")}
        write(parameters, settings, options.run, options.out)
        return
    work = options.out / "training"
    work.mkdir(exist_ok=True)
    write(train_on(work, int(options.tokens)), train.SETTINGS, work, options.out)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
