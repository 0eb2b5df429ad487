"""The memory of converting an FP8 checkpoint of the shapes of Qwen3-14B, with fewer layers.

python -m benchmarks.fp8_memory --layers 2
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlx_qwen3.checkpoint.catalog import FAMILY

BLOCK = 128
PATTERN = 2**22  # bytes of random numbers, repeated


def write_source(folder: Path, layers: int) -> None:
    """A checkpoint as Qwen publishes FP8: float8_e4m3fn, and a bfloat16 scale for 128 by 128 numbers."""
    raw = FAMILY["14b"].shape.config_json() | {"num_hidden_layers": layers}
    raw["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    (folder / "config.json").write_text(json.dumps(raw))
    hidden, head, size = raw["hidden_size"], raw["head_dim"], raw["intermediate_size"]
    queries, keys = (raw[f"num_{name}_heads"] * head for name in ("attention", "key_value"))
    matrices = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (size, hidden),
        "mlp.up_proj": (size, hidden),
        "mlp.down_proj": (hidden, size),
    }
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    norms |= {"self_attn.q_norm": head, "self_attn.k_norm": head}
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (raw["vocab_size"], hidden)),
        "lm_head.weight": ("BF16", (raw["vocab_size"], hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
    }
    for layer in range(layers):
        for name, shape in matrices.items():
            path = f"model.layers.{layer}.{name}"
            tensors[f"{path}.weight"] = ("F8_E4M3", shape)
            tensors[f"{path}.weight_scale_inv"] = ("BF16", (-(-shape[0] // BLOCK), shape[1] // BLOCK))
        tensors |= {f"model.layers.{layer}.{name}.weight": ("BF16", (n,)) for name, n in norms.items()}
    _write(folder / "model.safetensors", tensors)


def _write(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    random = np.random.default_rng(0)
    fp8 = random.integers(0, 0x60, PATTERN, np.uint8).tobytes()
    bf16 = (
        (random.normal(0, 0.02, PATTERN // 2).astype(np.float32).view(np.uint32) >> 16)
        .astype(np.uint16)
        .tobytes()
    )
    header: dict[str, Any] = {}
    stop = 0
    for name, (dtype, shape) in tensors.items():
        start, stop = stop, stop + int(np.prod(shape)) * (1 if dtype == "F8_E4M3" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for dtype, shape in tensors.values():
            left = int(np.prod(shape)) * (1 if dtype == "F8_E4M3" else 2)
            pattern = fp8 if dtype == "F8_E4M3" else bf16
            while left:
                left -= file.write(pattern[:left])


def convert_and_measure(source: Path, output: Path, verify: bool) -> None:
    """Convert in this process, and print what it took."""
    from mlx_qwen3.conversion import convert

    start = time.perf_counter()
    report = convert(source, output, verify=verify)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        f"{report.num_parameters / 1e9:.2f}B parameters, {time.perf_counter() - start:.0f} s, "
        f"peak resident {peak / 1e9:.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--convert", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        source, output = arguments.convert
        convert_and_measure(source, output, arguments.verify)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        write_source(source, arguments.layers)
        command = [sys.executable, "-m", "benchmarks.fp8_memory", "--convert", str(source)]
        command += [str(Path(folder) / "out"), *(["--verify"] if arguments.verify else [])]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
