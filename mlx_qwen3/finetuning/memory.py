"""Plans the memory of a training before a weight is read: whether it fits, or what would.

A training keeps what its backward pass needs of every adapted layer: activations, and attention's scores,
which grow with the square of the length. The factors of a CPU, where the step is not compiled and nothing is
fused, were fitted to `benchmarks/finetune_memory.py`. Those of a GPU were not measured: they are the least
that its backward pass needs, so that nothing is refused that would fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_qwen3.backend.device import available_memory, is_cpu
from mlx_qwen3.backend.safetensors_io import DTYPES
from mlx_qwen3.checkpoint.catalog import FAMILY
from mlx_qwen3.checkpoint.load import load_config
from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.errors import InsufficientMemoryError, Suggestion
from mlx_qwen3.finetuning.options import FinetuneOptions
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import compute_dtype


@dataclass(frozen=True)
class Factors:
    """Arrays that are alive at once.

    Attributes:
        hidden, attention, mlp: Of an adapted layer, as wide as the hidden size; queries, keys and values; the
            feed-forward.
        scores: fp32 scores of an adapted layer, (heads, L, L).
        logits: fp32 logits, (L, V).
        dora: fp32 matrices as large as each that is adapted.
        other_layers: What a layer that is not adapted takes, as a share of one that is.
    """

    hidden: float
    attention: float
    mlp: float
    scores: float
    logits: float
    dora: float
    other_layers: float


CPU_FACTORS = Factors(75.0, 36.0, 6.0, 10.3, 2.6, 6.0, 0.28)
GPU_FACTORS = Factors(4.0, 2.0, 3.0, 0.0, 2.0, 1.0, 0.0)
# fp32 arrays for each trained one: itself, its gradient, Adam's two moments; and while it is updated.
TRAINED_ARRAYS, UPDATED_ARRAYS = 4, 7


@dataclass(frozen=True)
class TrainingEstimate:
    """Bytes that a training takes. `trained`: weights of the adapter, with gradients and optimizer."""

    weights: int
    trained: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.activations


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be trained. weights: bytes of the model. tokens: of the longest example, padded."""

    config: ModelConfig
    weights: int
    itemsize: int
    options: FinetuneOptions
    tokens: int

    def estimate(self) -> TrainingEstimate:
        """The memory of a step with the longest examples."""
        config, options = self.config, self.options
        layers = min(options.layers or config.num_hidden_layers, config.num_hidden_layers)
        matrices = _matrices(config, options.method == "lora")
        numbers = options.rank * sum(count * (rows + columns) for rows, columns, count in matrices) * layers
        trained = 4 * TRAINED_ARRAYS * numbers
        activations = options.batch_size * self.tokens * self._per_token(layers)
        if options.method == "dora":
            activations += _factors().dora * 4 * layers * sum(rows * columns for rows, columns, _ in matrices)
        # Activations are gone when the weights are updated.
        update = 4 * (UPDATED_ARRAYS - TRAINED_ARRAYS) * numbers
        return TrainingEstimate(self.weights, trained, int(max(activations, update)))

    def _per_token(self, layers: int) -> float:
        """Bytes of activations for each token."""
        config = self.config
        heads = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        width = max(config.intermediate_size, config.num_experts_per_tok * config.moe_intermediate_size)
        factors = _factors()
        numbers = factors.hidden * config.hidden_size + factors.attention * heads + factors.mlp * width
        scores = 4 * factors.scores * config.num_attention_heads * self.tokens
        logits = 4 * factors.logits * config.vocab_size
        layers_in_full = layers + factors.other_layers * (config.num_hidden_layers - layers)
        return layers_in_full * (self.itemsize * numbers + scores) + logits


def plan_training(
    folder: Path, name: str, options: FinetuneOptions, tokens: int, available: int | None = None
) -> TrainingEstimate:
    """The memory of a training; only the headers of the model's files are read.

    Args:
        folder: The model.
        name: What the user calls it.
        options: Of the training.
        tokens: Of the longest example.
        available: Bytes to plan for; None is what this machine has.

    Raises:
        InsufficientMemoryError: It does not fit. Suggests what would.
        ConfigError, CheckpointError: The model's files cannot be used.
    """
    available = available_memory() if available is None else available
    stored = stored_tensors(folder)
    norm = stored.get("model.norm.weight")
    itemsize = compute_dtype(DTYPES[norm.dtype]).size if norm is not None else 4
    weights = sum(tensor.num_bytes for tensor in stored.values())
    request = TrainingRequest(load_config(folder), weights, itemsize, options, tokens)
    estimate = request.estimate()
    if estimate.total <= available:
        return estimate
    problem = (
        f"training {name} on answers of up to {tokens:,} tokens, {options.batch_size} at a time, needs "
        f"{estimate.total / 1e9:.2f} GB of memory, and {available / 1e9:.2f} GB can be had"
    )
    suggestions = list(_suggestions(request, available))
    if not suggestions:
        problem += "; no Qwen3 model fits: shorten the conversations, or close other programs"
    raise InsufficientMemoryError(problem, suggestions)


def _suggestions(request: TrainingRequest, available: int) -> Iterator[Suggestion]:
    """Options that fit: a smaller batch, fewer layers with it, a smaller model."""

    def fits(batch_size: int, layers: int | None = request.options.layers) -> bool:
        options = replace(request.options, batch_size=batch_size, layers=layers)
        other = replace(request, options=options)
        return other.estimate().total <= available

    sizes = range(request.options.batch_size - 1, 0, -1)
    batch_size = next((size for size in sizes if fits(batch_size=size)), None)
    if batch_size is not None:
        yield {"batch_size": batch_size}
    else:
        most = request.options.layers or request.config.num_hidden_layers
        layers = next((count for count in range(most - 1, 0, -1) if fits(batch_size=1, layers=count)), None)
        if layers is not None:
            yield {"batch_size": 1, "layers": layers}
    for member in sorted(FAMILY.values(), key=lambda member: -member.num_bytes):
        if member.num_bytes < request.weights:
            smaller = replace(request, config=member.config, weights=member.num_bytes)
            if smaller.estimate().total <= available:
                yield {"model": member.name}
                return


def _factors() -> Factors:
    return CPU_FACTORS if is_cpu() else GPU_FACTORS


def _matrices(config: ModelConfig, has_experts: bool) -> list[tuple[int, int, int]]:
    """The matrices of a layer that are adapted: rows, columns, and how many of that size."""
    queries, keys = (
        count * config.head_dim for count in (config.num_attention_heads, config.num_key_value_heads)
    )
    hidden = config.hidden_size
    matrices = [(queries, hidden, 2), (keys, hidden, 2)]  # q and o, k and v
    if not config.num_experts:
        matrices.append((config.intermediate_size, hidden, 3))
    elif has_experts:
        matrices.append((config.moe_intermediate_size, hidden, 3 * config.num_experts))
    return matrices
