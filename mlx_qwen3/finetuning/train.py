"""Trains an adapter with mlx-lm's trainer, and saves its state: a killed training continues exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.checkpoint import resolve
from mlx_qwen3.checkpoint.load import load
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.files import write_atomically
from mlx_qwen3.finetuning.data import Example, read_examples
from mlx_qwen3.finetuning.memory import plan_training
from mlx_qwen3.finetuning.options import FinetuneOptions
from mlx_qwen3.model.qwen3 import Model

STATE = "training_state.safetensors"
WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"
UNFINISHED = ".unfinished.safetensors"  # what is being written
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
EXPERTS = tuple(name.replace("mlp.", "mlp.switch_mlp.") for name in MLP)
PAD_TO = 32  # lengths of batches are multiples of it, so that few steps are compiled


@dataclass
class FinetuneReport:
    """The result: the adapter's folder, and the loss (nats a token) after each so many steps."""

    folder: Path
    losses: list[tuple[int, float]] = field(default_factory=list)


def finetune(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    options: FinetuneOptions | None = None,
    *,
    resume: bool = False,
    report_every: int = 10,
    on_report: Callable[[int, float], object] | None = None,
) -> FinetuneReport:
    """Train an adapter for a model on conversations.

    The adapter runs here (`Engine(adapter=...)`) and in mlx-lm. The state of the training is saved with every
    report; one that was killed continues with `resume` and gives the same weights. The folder becomes an
    adapter when the training ends, not before.

    Args:
        model: As for `load_model`.
        data: A .jsonl file with one conversation a line: `messages`, and perhaps `tools`.
        output: The folder of the adapter. It must be new, or hold the training to resume.
        options: What decides the result.
        resume: Continue the training in `output`.
        report_every: Steps between two reports.
        on_report: Called with the step and the mean loss since the last report.

    Raises:
        MessageError: A line of `data` cannot be used.
        ConversionError: An option or the output folder cannot be used.
        InsufficientMemoryError: The training does not fit in memory, which is known before weights are read.
        CheckpointError, ConfigError: As for `load_model`.
    """
    options, output = options or FinetuneOptions(), Path(output).expanduser()
    if not resume and output.exists() and any(file.name != UNFINISHED for file in output.iterdir()):
        raise ConversionError(f"{output} is not empty", [{"resume": True}])
    folder = resolve(model)
    tokenizer = load_tokenizer(folder)
    examples = read_examples(Path(data).expanduser(), tokenizer, options.thinking, options.max_length)
    largest = replace(options, batch_size=min(options.batch_size, len(examples)))
    plan_training(folder, str(model), largest, _padded_length(examples))
    loaded = load(folder, name=str(model)).model
    run = _Training(loaded, examples, options, output, str(model))
    if resume:
        run.resume()
    run.train(report_every, on_report)
    return FinetuneReport(output, run.losses)


class _Training:
    """One training: the model with its adapter, the optimizer, and where it is."""

    def __init__(
        self, model: Model, examples: Sequence[Example], options: FinetuneOptions, output: Path, name: str
    ):
        from mlx_lm.tuner.utils import linear_to_lora_layers

        self._model, self._examples, self._options, self._output = model, examples, options, output
        self.losses: list[tuple[int, float]] = []
        self._done = 0
        mx.random.seed(options.seed)
        keys = [*ATTENTION, *MLP, *(EXPERTS if options.method == "lora" else ())]
        parameters = {"rank": options.rank, "scale": options.scale, "dropout": 0.0, "keys": keys}
        layers = options.layers or len(model.layers)
        model.freeze()
        linear_to_lora_layers(model, layers, parameters, use_dora=options.method == "dora")
        self._optimizer = optimizers.Adam(learning_rate=options.learning_rate)
        self._optimizer.init(model.trainable_parameters())
        self._config = {
            "fine_tune_type": options.method,
            "num_layers": layers,
            "lora_parameters": parameters,
            "model": name,
        }
        digest = blake2b(repr([asdict(options), [example.ids for example in examples]]).encode())
        self._digest = digest.hexdigest()[:32]

    def resume(self) -> None:
        """Go on where the state in the output folder was saved. Raises ConversionError."""
        path = self._output / STATE
        if not path.is_file():
            raise ConversionError(f"{self._output} holds no training to resume ({STATE} is missing)")
        try:
            loaded: Any = mx.load(str(path), return_metadata=True)
            arrays, metadata = loaded
            state = json.loads(metadata["training"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ConversionError(f"{path} is damaged; start anew in another folder") from error
        if state["digest"] != self._digest:
            raise ConversionError(f"{path} was saved with other options or data; start in another folder")
        of_model = {name[6:]: value for name, value in arrays.items() if name.startswith("model.")}
        of_optimizer = [(name[10:], value) for name, value in arrays.items() if name.startswith("optimizer.")]
        self._model.load_weights(list(of_model.items()), strict=False)
        self._optimizer.state = tree_unflatten(of_optimizer)
        self._done, self.losses = state["step"], [(step, loss) for step, loss in state["losses"]]

    def train(self, report_every: int, on_report: Callable[[int, float], object] | None) -> None:
        """Train the steps that are left."""
        from mlx_lm.tuner.callbacks import TrainingCallback
        from mlx_lm.tuner.trainer import TrainingArgs, train

        training, first = self, self._done

        class Callback(TrainingCallback):
            def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
                step, loss = first + train_info["iteration"], train_info["train_loss"]
                training.losses.append((step, loss))
                training.save(step)
                if on_report is not None:
                    on_report(step, loss)

        self._output.mkdir(parents=True, exist_ok=True)
        left = self._options.steps - self._done
        if left > 0:
            arguments = TrainingArgs(
                batch_size=self._options.batch_size,
                iters=left,
                steps_per_report=report_every,
                steps_per_save=left + 1,
                max_seq_length=self._options.max_length,
                adapter_file=str(self._output / UNFINISHED),  # mlx-lm writes it in place
            )
            with _compiled_on_gpus():
                train(
                    self._model,
                    self._optimizer,
                    self._examples,
                    args=arguments,
                    iterate_batches=lambda **_: self._batches(),
                    training_callback=Callback(),
                )
        self._finish()

    def save(self, step: int) -> None:
        """Save weights, optimizer and place; a kill leaves the state before. Raises OSError."""
        weights = tree_flatten(self._model.trainable_parameters())
        arrays = {f"model.{name}": value for name, value in weights}
        arrays |= {f"optimizer.{name}": value for name, value in tree_flatten(self._optimizer.state)}
        metadata = {"training": json.dumps({"step": step, "digest": self._digest, "losses": self.losses})}
        self._write(STATE, arrays, metadata)

    def _finish(self) -> None:
        """Make the folder an adapter: only one whose training has ended has the files of one."""
        write_atomically(self._output / CONFIG, json.dumps(self._config, indent=4) + "\n", mode=0o644)
        self._write(WEIGHTS, dict(tree_flatten(self._model.trainable_parameters())), {"format": "mlx"})
        (self._output / UNFINISHED).unlink(missing_ok=True)

    def _write(self, name: str, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
        unfinished = self._output / UNFINISHED
        mx.save_safetensors(str(unfinished), arrays, metadata=metadata)
        unfinished.replace(self._output / name)

    def _batches(self) -> Iterator[tuple[mx.array, mx.array]]:
        """Batches (B, L) and where their answers begin and end (B, 2), from the step that is next."""
        size, step = min(self._options.batch_size, len(self._examples)), 0
        for epoch in range(self._options.steps):
            order = np.random.default_rng([self._options.seed, epoch]).permutation(len(self._examples))
            for start in range(0, len(order) - size + 1, size):
                if step >= self._done:
                    yield _padded([self._examples[index] for index in order[start : start + size]])
                step += 1


@contextmanager
def _compiled_on_gpus() -> Iterator[None]:
    """mlx-lm's trainer compiles its step. On a CPU that takes a C++ compiler, and longer than it saves."""
    if is_cpu():
        mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()


def _padded_length(examples: Sequence[Example]) -> int:
    return -(-max(len(example.ids) for example in examples) // PAD_TO) * PAD_TO


def _padded(examples: Sequence[Example]) -> tuple[mx.array, mx.array]:
    longest = _padded_length(examples)
    ids = [[*example.ids, *[0] * (longest - len(example.ids))] for example in examples]
    return mx.array(ids), mx.array([[example.answer, len(example.ids) - 1] for example in examples])
