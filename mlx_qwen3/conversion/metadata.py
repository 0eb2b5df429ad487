"""The files beside the weights: config, index, tokenizer and template, model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.checkpoint.files import INDEX
from mlx_qwen3.checkpoint.find import FAMILY, HUB_ID
from mlx_qwen3.config import Quantization
from mlx_qwen3.conversion.originals import CONFIG
from mlx_qwen3.conversion.planning import Plan

CARD = "README.md"
LEFT_OUT = ("_name_or_path", "quantization", "quantization_config")


def write_metadata(plan: Plan, folder: Path, title: str, source: str, dtype: mx.Dtype | None) -> None:
    """Everything but the weights, into `folder`.

    title: the model's name. source: as the user named it. dtype: the format asked for, if any.
    """
    plan.original.write_files(folder)
    _write_json(folder / INDEX, _index(plan))
    (folder / CARD).write_text(_card(plan, title, source), encoding="utf-8")
    _write_json(folder / CONFIG, _config(plan, dtype))


def _config(plan: Plan, dtype: mx.Dtype | None) -> dict[str, Any]:
    """The source's config.json as MLX tools read it, with the quantization."""
    config = plan.config
    raw = {key: value for key, value in plan.original.raw_config.items() if key not in LEFT_OUT}
    # transformers 5 moved these; MLX tools look for them where they were.
    raw.setdefault("rope_theta", config.rope_theta)
    rope = raw.get("rope_parameters") or {}
    if config.rope_scaling and not raw.get("rope_scaling"):
        raw["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    if config.num_experts:
        raw.setdefault("num_experts", config.num_experts)
    if dtype is not None:
        raw |= {key: _name(dtype) for key in ("torch_dtype", "dtype") if key in raw}
    if config.quantization is not None:
        raw["quantization"] = raw["quantization_config"] = config.quantization.to_dict()
    return dict(sorted(raw.items()))


def _index(plan: Plan) -> dict[str, Any]:
    files = {
        output.name: plan.shard_name(i)
        for i, shard in enumerate(plan.shards)
        for step in shard
        for output in step.outputs
    }
    sizes = {"total_size": plan.total_size, "total_parameters": plan.num_parameters}
    return {"metadata": sizes, "weight_map": dict(sorted(files.items()))}


def _card(plan: Plan, title: str, source: str) -> str:
    """A short README, with the fields a hub page is built from."""
    repository = FAMILY[source].repository if source in FAMILY else source
    is_public = HUB_ID.fullmatch(repository) and not Path(source).exists()
    fields = ["library_name: mlx", "pipeline_tag: text-generation", "tags:", "- mlx"]
    if is_public:
        fields.append(f"base_model: {repository}")
    origin = f"Converted from {repository}" if is_public else "Converted"
    lines = ["---", *fields, "---", "", f"# {title}", ""]
    lines += [f"{origin} with mlx_qwen3: {_how(plan.config.quantization)}."]
    if plan.recipe.searched:
        lines += [f"Recipe `{plan.recipe.name}`: {plan.recipe.about}."]
    lines += [f"{plan.bits_per_weight:.2f} bits per weight, {plan.total_size:,} bytes of weights."]
    return "\n".join([*lines, ""])


def _how(quantization: Quantization | None) -> str:
    if quantization is None:
        return "not quantized"
    how = f"{quantization.bits} bits, groups of {quantization.group_size}, {quantization.mode}"
    layers = f"; {len(quantization.overrides)} layers otherwise (see config.json)"
    return how + (layers if quantization.overrides else "")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).rpartition(".")[2]
