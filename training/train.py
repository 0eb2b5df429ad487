"""Train the demo checkpoint from scratch: `python -m training.train --out DIR`.

Muon trains the matrices, AdamW the embedding and the norms. The learning rate follows the wall clock, so the
run ends on time. The last part is trained with weights rounded to 4 bits. A stopped run goes on from its last
checkpoint when it is started again.
"""

import argparse
import csv
import json
import random
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx_qwen3  # noqa: F401  (loads the fast BLAS before MLX)

import mlx.core as mx  # isort: skip
import mlx.optimizers as optimizers
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from tokenizers import Tokenizer

from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model
from training.arithmetic import Problem
from training.data import EARLY, LATE, TEMPLATE_FILE, Batch, Mix, batches, load_template
from training.generation import complete
from training.quantization import round_parameters, write_checkpoint
from training.tokenizer import VOCABULARY_SIZE, train_tokenizer, write_tokenizer

SETTINGS = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": 4096,
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 10000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": VOCABULARY_SIZE,
}
MUON_RATE, ADAMW_RATE = 0.015, 3e-3
LATE_FROM = 0.4  # share of the time after which the mix of the data changes
MICRO_BATCHES = 2  # each holds examples of similar length; a step sees two lengths


@dataclass
class Progress:
    """The state of a run besides its arrays."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    seed: int = 0


def initial_parameters(model: Model, seed: int) -> dict:
    """Normal weights of deviation 0.02 for the embedding, scaled by fan-in for the matrices; norms at one."""
    mx.random.seed(seed)

    def make(name: str, weight: mx.array) -> mx.array:
        if weight.ndim == 1:
            return mx.ones_like(weight)
        deviation = 0.02 if "embed" in name else weight.shape[1] ** -0.5
        small = 0.3 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        return mx.random.normal(weight.shape) * deviation * small

    return tree_unflatten([(name, make(name, weight)) for name, weight in tree_flatten(model.parameters())])


def make_optimizer() -> optimizers.MultiOptimizer:
    # MLX adds weight decay to the gradient before Muon normalises it: any of it shrinks weights to nothing.
    muon = optimizers.Muon(learning_rate=MUON_RATE, momentum=0.95, weight_decay=0.0)
    adamw = optimizers.AdamW(learning_rate=ADAMW_RATE, betas=[0.9, 0.98], weight_decay=0.0)
    return optimizers.MultiOptimizer([muon, adamw], [lambda name, w: w.ndim == 2 and "embed" not in name])


def learning_rate_factor(share: float) -> float:
    """Warm up over 1 %, hold, then fall in a line from 35 % to the end."""
    if share < 0.01:
        return max(share / 0.01, 0.02)
    return 1.0 if share < 0.35 else max((1.0 - share) / 0.65, 0.01)


def batch_loss(model: Model, batch: Batch, total: int) -> mx.array:
    """Summed cross-entropy of the learned tokens over `total`; logits are made for those positions only."""
    hidden = model.model(mx.array(batch.inputs))
    chosen = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.learned)]
    logits = model.model.embed_tokens.as_linear(chosen)
    targets = mx.array(batch.targets)
    picked = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return mx.sum(mx.logsumexp(logits, axis=-1) - picked) / total


class Trainer:
    """One run: parameters, optimizer, data and log, in a folder."""

    settings = SETTINGS

    def __init__(self, folder: Path, budget: float, quantize_from: float, tokens_per_step: int):
        self.folder, self.budget, self.quantize_from = folder, budget, quantize_from
        self.tokens_per_micro_batch = tokens_per_step // MICRO_BATCHES
        self.model = Model(ModelConfig.from_dict(self.settings))
        self.progress = Progress()
        self.stopping = False
        self.parameters = initial_parameters(self.model, self.progress.seed)
        self.optimizer = make_optimizer()
        self.optimizer.init(self.parameters)
        self.tokenizer = self._tokenizer()
        self._resume()
        self.gradient = mx.value_and_grad(self._loss)

    def _tokenizer(self) -> Tokenizer:
        if not (self.folder / "tokenizer.json").exists():
            write_tokenizer(train_tokenizer(), self.folder)
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def _loss(self, parameters: dict, batch: Batch, total: int) -> mx.array:
        self.model.update(parameters)
        return batch_loss(self.model, batch, total)

    @property
    def share(self) -> float:
        return min(self.progress.seconds / self.budget, 1.0)

    @property
    def quantizing(self) -> bool:
        return self.share >= self.quantize_from

    def mix(self) -> Mix:
        """The mix of data: at first more arithmetic, which needs the most practice; later the rest."""
        return LATE if self.share > LATE_FROM else EARLY

    def step(self, micro_batches: list[Batch]) -> float:
        """One update; returns the mean loss of a learned token."""
        factor = learning_rate_factor(self.share)
        self.optimizer.optimizers[0].learning_rate = MUON_RATE * factor
        self.optimizer.optimizers[1].learning_rate = ADAMW_RATE * factor
        total = sum(len(batch.learned) for batch in micro_batches)
        # The gradient is taken at the rounded weights and applied to the full ones (straight-through).
        at = round_parameters(self.parameters) if self.quantizing else self.parameters
        mx.eval(at)
        losses, gradients = [], []
        for batch in micro_batches:
            loss, gradient = self.gradient(at, batch, total)
            losses.append(loss)
            gradients.append(gradient)
        gradient = tree_map(lambda first, *others: sum(others, first), *gradients)
        gradient, _ = optimizers.clip_grad_norm(gradient, 1.0)
        self.parameters = self.optimizer.apply_gradients(gradient, self.parameters)
        mx.eval(self.parameters, self.optimizer.state)
        return sum(loss.item() for loss in losses)

    def accuracy(self, count: int = 40) -> float:
        """Share of held-out three-digit additions answered correctly, thinking, with rounded weights."""
        problems = held_out_additions(count, seed=self.progress.step)
        self.model.update(round_parameters(self.parameters))
        template = load_template()
        questions = [[{"role": "user", "content": f"What is {p.a} + {p.b}?"}] for p in problems]
        texts = [template.render(messages=question, add_generation_prompt=True) for question in questions]
        prompts = [self.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        stop = self.tokenizer.token_to_id("<|im_end|>")
        outputs = complete(self.model, prompts, stop, thinking=True, limit=160)
        texts = [self.tokenizer.decode(output, skip_special_tokens=False) for output in outputs]
        return (
            sum(text.endswith(f"</think>\n\n{p.answer}") for p, text in zip(problems, texts, strict=True))
            / count
        )

    def save(self) -> None:
        flat = dict(tree_flatten(self.parameters))
        mx.save_safetensors(str(self.folder / "parameters.safetensors"), flat)
        mx.save_safetensors(
            str(self.folder / "optimizer.safetensors"), dict(tree_flatten(self.optimizer.state))
        )
        (self.folder / "progress.json").write_text(json.dumps(asdict(self.progress)))
        write_checkpoint(self.parameters, self.settings, self.folder / "checkpoint")
        write_tokenizer(self.tokenizer, self.folder / "checkpoint")
        shutil.copy(TEMPLATE_FILE, self.folder / "checkpoint")

    def _resume(self) -> None:
        if not (self.folder / "progress.json").exists():
            return
        self.progress = Progress(**json.loads((self.folder / "progress.json").read_text()))
        self.progress.seed += 1  # new data
        self.parameters = tree_unflatten(list(mx.load(str(self.folder / "parameters.safetensors")).items()))
        self.optimizer.state = tree_unflatten(
            list(mx.load(str(self.folder / "optimizer.safetensors")).items())
        )

    def run(self, report_every: float = 20.0, check_every: float = 180.0) -> None:
        seed = random.randrange(2**31) if self.progress.seed else 1
        source = batches(self.tokenizer, seed, self.tokens_per_micro_batch, self.mix)
        is_new = not (self.folder / "log.csv").exists()
        log_file = (self.folder / "log.csv").open("a", newline="")
        log = csv.writer(log_file, lineterminator="\n")
        if is_new:
            log.writerow(["step", "tokens", "seconds", "loss", "accuracy", "rounding"])
        next_report, next_check = self.progress.seconds, self.progress.seconds + check_every / 2
        recent: list[float] = []
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        while self.share < 1.0 and not self.stopping:
            started = time.monotonic()
            micro_batches = [next(source) for _ in range(MICRO_BATCHES)]
            recent.append(self.step(micro_batches))
            self.progress.step += 1
            self.progress.tokens += sum(batch.inputs.size for batch in micro_batches)
            self.progress.seconds += time.monotonic() - started
            if self.progress.seconds >= next_report or self.share >= 1.0:
                accuracy = ""
                if self.progress.seconds >= next_check or self.share >= 1.0:
                    accuracy = self.accuracy()
                    self.save()
                    next_check += check_every
                next_report += report_every
                row = [self.progress.step, self.progress.tokens, round(self.progress.seconds)]
                row += [round(sum(recent) / len(recent), 5), accuracy, int(self.quantizing)]
                log.writerow(row)
                log_file.flush()
                print(time.strftime("%H:%M:%S"), *row, flush=True)
                recent = []
        log_file.close()
        self.save()

    def stop(self) -> None:
        """Save and end after the current step."""
        self.stopping = True


def held_out_additions(count: int, seed: int) -> list[Problem]:
    """Three-digit additions that training never saw."""
    rng = random.Random(seed)
    problems: list[Problem] = []
    while len(problems) < count:
        problem = Problem("add", rng.randint(100, 999), rng.randint(100, 999))
        if problem.held_out:
            problems.append(problem)
    return problems


def train(kind: type[Trainer], description: str | None, minutes: float) -> None:
    """Run `kind` with the settings of the command line; `minutes` is the default time."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=minutes, help="time to train for")
    parser.add_argument(
        "--quantize-from",
        type=float,
        default=0.75,
        help="share of the time after which 4-bit rounding starts",
    )
    parser.add_argument("--tokens-per-step", type=int, default=3072)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    trainer = kind(arguments.out, arguments.minutes * 60, arguments.quantize_from, arguments.tokens_per_step)
    trainer.run()


if __name__ == "__main__":
    train(Trainer, __doc__, minutes=62.0)
