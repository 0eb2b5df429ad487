"""The CPU backend: same results, same parameters, in the memory of the checkpoint."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from fresh_python import python
from mlx.utils import tree_flatten
from parity.model_cases import DENSE, MOE, Raw
from tiny_checkpoints import write_checkpoint

import mlx_qwen3
from mlx_qwen3.backend import device, matmul, stored_matrix
from mlx_qwen3.generation.prefill import prefill
from mlx_qwen3.model import prepare
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.mlp import QuantizedSwitchLinear, SwitchLinear
from mlx_qwen3.model.qwen3 import Model

FORMATS = {
    "affine-4": (4, 64, "affine"),
    "affine-3": (3, 32, "affine"),
    "affine-8": (8, 64, "affine"),
    "mxfp4": (4, 32, "mxfp4"),
    "mxfp8": (8, 32, "mxfp8"),
    "nvfp4": (4, 16, "nvfp4"),
    "bf16": (16, 0, ""),
}
SIZES = {"hidden_size": 128, "intermediate_size": 192, "moe_intermediate_size": 64, "num_hidden_layers": 2}
SHAPES = {
    "dense": {**DENSE, **SIZES},
    "tied": {**DENSE, **SIZES, "tie_word_embeddings": True},
    "moe": {**MOE, **SIZES},
}
IDS = mx.array([[(7 * i) % 96 for i in range(40)], [(11 * i + 3) % 96 for i in range(40)]])


@pytest.fixture(autouse=True)
def on_cpu() -> Iterator[None]:
    """Compute on the CPU, whatever else the machine has."""
    before = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu))
    yield
    mx.set_default_device(before)


def stored(raw: Raw, storage: str) -> Model:
    """A model as a checkpoint stores it: quantized or not, the rest in bf16."""
    bits, group_size, mode = FORMATS[storage]
    mx.random.seed(1)
    model = Model(ModelConfig.from_dict(raw))
    if bits < 16:
        nn.quantize(model, group_size, bits, mode=mode)
    model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    return model


def plain_fp32(raw: Raw, storage: str) -> Model:
    """The same numbers, computed in fp32 by MLX's own modules."""
    model = stored(raw, storage)
    model.set_dtype(mx.float32)
    return model


def difference(a: mx.array, b: mx.array) -> float:
    """Largest difference, relative to the largest logit."""
    return float((mx.abs(a - b).max() / mx.abs(b).max()).item())


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_mlx_in_fp32(shape: str, storage: str) -> None:
    reference = plain_fp32(SHAPES[shape], storage)
    model = prepare.prepare(stored(SHAPES[shape], storage))
    for ids in (IDS, IDS[:1, :1], IDS[:1, :2], IDS[:, :3], IDS[:1, :20]):
        logits = model(ids)
        assert logits.dtype == mx.float32
        assert difference(logits, reference(ids)) <= 1e-4


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_modules_and_parameters_keep_their_names_and_values(shape: str, storage: str) -> None:
    before = stored(SHAPES[shape], storage)
    types = {path: type(module) for path, module in before.named_modules()}
    model = prepare.prepare(stored(SHAPES[shape], storage))
    for path, module in model.named_modules():
        assert isinstance(module, types[path])
    old, new = dict(tree_flatten(before.parameters())), dict(tree_flatten(model.parameters()))
    assert list(old) == list(new)
    for name, value in old.items():
        assert mx.array_equal(new[name].astype(value.dtype), value), name
        # Matrices and their scales stay as they are stored; the vectors of norms are cast.
        assert new[name].dtype == (mx.float32 if value.ndim < 2 else value.dtype), name
    frozen, still = dict(tree_flatten(before.trainable_parameters())), model.trainable_parameters()
    assert list(frozen) == [name for name, _ in tree_flatten(still)]


@pytest.mark.parametrize("storage", ["affine-4", "bf16"])
def test_products_with_stored_matrices_take_the_memory_of_a_few_tiles(
    monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.setattr(matmul, "TILE_BYTES", 2**18)
    monkeypatch.setattr(stored_matrix, "TILE_NUMBERS", 2**16)
    raw = {**SHAPES["tied"], "intermediate_size": 8192, "hidden_size": 512}
    model = prepare.prepare(stored(raw, storage))
    mx.eval(model(IDS[:, :4]))
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(model(IDS[:, :4]))
    assert mx.get_peak_memory() - before < 2 * 2**20  # one matrix is 16 MiB in fp32


def test_prefill_computes_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepare.prepare(stored({**SHAPES["tied"], "vocab_size": 40_000}, "affine-4"))
    monkeypatch.setattr(type(model.model.embed_tokens), "as_linear", lambda *_: pytest.fail("logits made"))
    assert list(prefill(model, [1] * 40, model.make_cache(), chunk_size=20)) == [20, 40]


def test_new_weights_are_used_at_once() -> None:
    model = prepare.prepare(stored(SHAPES["tied"], "affine-4"))
    other = plain_fp32(SHAPES["tied"], "affine-4")
    for _, module in other.named_modules():
        if isinstance(module, nn.QuantizedLinear):
            module.weight = mx.random.randint(0, 2**31, module.weight.shape).astype(mx.uint32)
    model.load_weights(tree_flatten(other.parameters()))
    assert difference(model(IDS), other(IDS)) <= 1e-4


def test_a_bias_is_added() -> None:
    mx.random.seed(2)
    linear = nn.Linear(64, 48)
    holder = nn.Module()
    holder.quantized, holder.linear = nn.QuantizedLinear.from_linear(linear, 32, 8), linear
    holder.quantized.bias = linear.bias = mx.random.normal((48,))
    x = mx.random.normal((5, 64))
    expected = holder.quantized(x), holder.linear(x)
    prepare.prepare(holder)
    assert mx.allclose(holder.quantized(x), expected[0], atol=1e-4)
    assert mx.allclose(holder.linear(x), expected[1], atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_16_bit_inputs_are_multiplied_in_fp32(rows: int) -> None:
    for storage in ("affine-4", "bf16"):
        block = prepare.prepare(stored(SHAPES["moe"], storage)).layers[0]
        x = mx.random.normal((rows, 128)).astype(mx.bfloat16)
        assert _is_fp32_product(block.self_attn.q_proj, x)
        experts = block.mlp.switch_mlp.up_proj
        assert _is_fp32_product(partial(experts, experts=mx.arange(rows) % 8), x[:, None])


def _is_fp32_product(multiply: Callable[[mx.array], mx.array], x: mx.array) -> bool:
    product, expected = multiply(x), multiply(x.astype(mx.float32))
    return product.dtype == mx.float32 and bool(mx.allclose(product, expected, rtol=1e-5, atol=1e-5).item())


def test_gradients_pass_through() -> None:
    reference, model = plain_fp32(SHAPES["tied"], "affine-4"), stored(SHAPES["tied"], "affine-4")
    prepare.prepare(model)
    of = [
        mx.grad(lambda scale, m=m: (m(IDS[:, :5]) * m.model.embed_tokens(IDS[:, :5]).sum() * scale).sum())
        for m in (model, reference)
    ]
    ours, theirs = (gradient(mx.array(1.0)).item() for gradient in of)
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("storage", ["affine-4", "bf16"])
@pytest.mark.parametrize("rows", [3, 100])
def test_experts_can_be_compiled(storage: str, rows: int) -> None:
    """Which experts were chosen cannot be read while mx.compile traces; MLX's gather is used then."""
    model = prepare.prepare(stored(SHAPES["moe"], storage))
    experts = model.layers[0].mlp.switch_mlp.up_proj
    assert isinstance(experts, SwitchLinear | QuantizedSwitchLinear)
    x, chosen = mx.random.normal((rows, 1, 128)), mx.arange(rows) % 8
    compiled = mx.compile(lambda x, chosen: experts(x, chosen))
    assert mx.allclose(compiled(x, chosen), experts(x, chosen), atol=1e-4)


def test_nothing_changes_when_plain_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_QWEN3_PLAIN", "1")
    model = stored(SHAPES["dense"], "affine-4")
    types = [type(module) for _, module in model.named_modules()]
    assert prepare.prepare(model) is model
    assert [type(module) for _, module in model.named_modules()] == types
    assert model.model.norm.weight.dtype == mx.bfloat16
    assert prepare.compute_dtype(mx.bfloat16) == mx.bfloat16


def test_nothing_changes_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "is_cpu", lambda: False)
    model = stored(SHAPES["dense"], "affine-4")
    prepare.prepare(model)
    assert type(model.lm_head) is nn.QuantizedLinear
    assert model.model.norm.weight.dtype == mx.bfloat16


def test_compute_dtype() -> None:
    assert device.is_cpu()
    assert prepare.compute_dtype(mx.bfloat16) == prepare.compute_dtype(mx.float16) == mx.float32
    assert prepare.compute_dtype(mx.uint32) == mx.uint32


GREEDY = """
import json, sys
from mlx_qwen3 import load_model, make_prompt_cache
import mlx.core as mx
mx.set_default_device(mx.Device(mx.cpu))
from mlx_qwen3.generation.prefill import prefill
model = load_model(sys.argv[1])
prompt = [7 * i % 96 for i in range(150)]
cache = make_prompt_cache(model)
for _ in prefill(model, prompt[:-1], cache):
    pass
tokens = prompt[-1:]
while len(tokens) <= 24:
    tokens.append(model(mx.array([tokens[-1:]]), cache)[0, -1].argmax().item())
print(json.dumps([type(model.layers[0].self_attn.q_proj).__name__, tokens[1:]]))
"""


@pytest.mark.parametrize("shape", ["dense", "moe"])
def test_greedy_tokens_are_those_of_plain_mlx(shape: str, tmp_path: Path) -> None:
    """An fp32 checkpoint: no rounding hides a difference. Fresh processes, as users have."""
    write_checkpoint(tmp_path, SHAPES[shape])
    layer, ours = json.loads(python(GREEDY, str(tmp_path), MLX_QWEN3_PLAIN=""))
    plain_layer, plain = json.loads(python(GREEDY, str(tmp_path), MLX_QWEN3_PLAIN="1"))
    assert (layer, plain_layer) == ("CpuLinear", "Linear")
    assert len(set(ours)) > 3, "a text of few tokens could hide a difference"
    assert ours == plain


def imported_names(path: Path) -> set[str]:
    """Modules of the package that the file at `path` imports, by their dotted names."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("mlx_qwen3.")}


def test_no_device_is_hard_coded() -> None:
    package = Path(mlx_qwen3.__file__).parent
    files = list(package.rglob("*.py"))
    assert len(files) > 100
    assert [path.name for path in files if "mx.gpu" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("name", ["qwen3", "attention", "mlp", "rope", "config", "fused_projections"])
def test_the_model_knows_no_device(name: str) -> None:
    """The architecture reads like the paper: kernels, CPU layers and `prepare` deal with the device."""
    imported = imported_names(Path(prepare.__file__).parent / f"{name}.py")
    device_modules = ("mlx_qwen3.backend", "mlx_qwen3.model.cpu_layers", "mlx_qwen3.model.prepare")
    assert [module for module in imported if module.startswith(device_modules)] == []
