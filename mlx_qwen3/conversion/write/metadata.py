"""Writes config.json, the index and the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.checkpoint.catalog import FAMILY
from mlx_qwen3.checkpoint.hub_address import HUB_ID, from_address, split_revision
from mlx_qwen3.checkpoint.safetensors_files import INDEX
from mlx_qwen3.conversion.planning import ConversionPlan
from mlx_qwen3.conversion.source.open import CONFIG
from mlx_qwen3.conversion.verification.verify import Verification
from mlx_qwen3.model.config import Quantization

CARD = "README.md"
LEFT_OUT = ("_name_or_path", "quantization", "quantization_config")


def write_index(plan: ConversionPlan, folder: Path) -> None:
    """Write the index, which names the file of each tensor."""
    files = {
        output.name: plan.shard_name(i)
        for i, shard in enumerate(plan.shards)
        for step in shard
        for output in step.outputs
    }
    sizes = {"total_size": plan.total_size, "total_parameters": plan.num_parameters}
    _write_json(folder / INDEX, {"metadata": sizes, "weight_map": dict(sorted(files.items()))})


def write_config(plan: ConversionPlan, folder: Path, dtype: mx.Dtype | None) -> None:
    """Write the source's config.json with the new quantization, as MLX tools read it.

    dtype: recorded in place of the source's, if it is not None.
    """
    config = plan.config
    raw = {key: value for key, value in plan.source.raw_config.items() if key not in LEFT_OUT}
    # transformers 5 moved these into rope_parameters; MLX tools look for them in the old place.
    raw["rope_theta"] = config.rope_theta
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if config.rope_scaling:
        original = config.rope_scaling.original_max_position_embeddings
        raw["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
        raw["rope_scaling"]["original_max_position_embeddings"] = original
    raw["head_dim"] = config.head_dim
    raw["tie_word_embeddings"] = config.tie_word_embeddings
    if config.num_experts:
        raw["num_experts"] = config.num_experts
    if dtype is not None:
        name = str(dtype).rpartition(".")[2]
        raw |= {key: name for key in ("torch_dtype", "dtype") if key in raw}
    if config.quantization is not None:
        raw["quantization"] = raw["quantization_config"] = config.quantization.to_dict()
    _write_json(folder / CONFIG, dict(sorted(raw.items())))


def write_card(
    plan: ConversionPlan, folder: Path, title: str, source: str, verification: Verification | None
) -> None:
    """Write the model card. title: the model's name. source: the name the user gave."""
    (folder / CARD).write_text(_card(plan, folder, title, source, verification), encoding="utf-8")


def _card(
    plan: ConversionPlan, folder: Path, title: str, source: str, verification: Verification | None
) -> str:
    """A short README. Its first lines are the fields that the hub builds the page of the model from."""
    repository = FAMILY[source].repository if source in FAMILY else from_address(source)
    is_public = HUB_ID.fullmatch(repository) and not Path(source).exists()
    fields = ["library_name: mlx", "pipeline_tag: text-generation", "tags:", "- mlx"]
    if license_name := _license(folder):
        fields.append(f"license: {license_name}")
    if is_public:
        fields.append(f"base_model: {split_revision(repository)[0]}")
    origin = f"Converted from {repository}" if is_public else "Converted"
    lines = ["---", *fields, "---", "", f"# {title}", ""]
    lines += [f"{origin} with mlx_qwen3: {_settings(plan.config.quantization)}."]
    if plan.source.adapter is not None:
        lines += [f"With the adapter `{Path(plan.source.adapter).resolve().name}` fused into the weights."]
    if plan.recipe.searched:
        lines += [f"Recipe `{plan.recipe.name}`: {plan.recipe.about}."]
    if plan.calibration is not None:
        lines += [f"Calibrated on {plan.calibration.windows.size:,} tokens of text."]
    lines += [f"{plan.bits_per_weight:.2f} bits per weight, {plan.total_size:,} bytes of weights."]
    lines += _measured(verification)
    return "\n".join([*lines, "", run_line(f"{title}`"), ""])


def run_line(model: str) -> str:
    """The line of a card that says how to run it. model: its name, and the end of the line."""
    return f"Run it: `mlx-qwen3 chat --model {model}"


def _license(folder: Path) -> str | None:
    """The name of the licence that was copied from the source, if it is Qwen3's."""
    for file in folder.glob("LICENSE*"):
        if "Apache License" in file.read_text(encoding="utf-8", errors="replace")[:1000]:
            return "apache-2.0"
    return None


def _measured(verification: Verification | None) -> list[str]:
    """The lines about the errors that were measured."""
    if verification is None:
        return []
    lines = ["", "## Measured loss", ""]
    lines += [f"- relative error of the weights: {verification.error:.2%}"]
    if verification.worst is not None:
        lines += [f"- largest: {verification.worst.error:.2%}, in `{verification.worst.name}`"]
    if (probe := verification.probe) is not None:
        lines += [
            f"- predictions of {probe.tokens} tokens of a text: divergence (KL) from the original's "
            f"{probe.kl:.4f} nats per token, the same most likely token for {probe.top1:.1%} of them"
        ]
    else:
        lines += ["- predictions were not compared: the original was removed as it was converted"]
    return [*lines, "", "`SHA256SUMS` lists the files; `mlx-qwen3 verify` compares them with the original."]


def _settings(quantization: Quantization | None) -> str:
    if quantization is None:
        return "not quantized"
    text = f"{quantization.bits} bits, groups of {quantization.group_size}, {quantization.mode}"
    if quantization.overrides:
        text += f"; {len(quantization.overrides)} layers otherwise (see config.json)"
    return text


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
