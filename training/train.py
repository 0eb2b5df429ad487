"""Train the demo checkpoint from scratch: `python -m training.train --out DIR` (needs the extra `parity`).

PyTorch computes the gradients, a process for every core or one on a GPU. Muon trains the matrices, AdamW the
embedding and the norms. The last part is trained with weights rounded to 4 bits. A stopped run goes on from
its last checkpoint when it is started again.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from training.arithmetic import Problem
from training.checkpoint import Checkpoint
from training.data import EARLY, LATE, TEMPLATE_FILE, Batch, Mix, batches
from training.optimizer import Muon, summed
from training.quantization import rounded_tensor, write_checkpoint
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
LATE_FROM = 0.4  # share of the tokens after which the mix of the data changes
REPORT_EVERY, CHECK_EVERY = 20.0, 300.0  # seconds


@dataclass(frozen=True)
class Plan:
    """What a run does: where, how many tokens in all and a step, and when the rounding to 4 bits begins."""

    folder: Path
    tokens: int
    tokens_per_step: int
    quantize_from: float
    workers: int
    device: str


@dataclass
class Progress:
    """The state of a run besides its arrays."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    starts: int = 0


def new_model(settings: dict, seed: int) -> Qwen3ForCausalLM:
    """Normal weights of deviation 0.02 for the embedding, scaled by fan-in for the matrices; norms at one."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**settings)).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
                continue
            deviation = 0.02 if "embed" in name else weight.shape[1] ** -0.5
            small = 0.3 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            weight.normal_(0.0, deviation * small)
    return model


def learning_rate_factor(share: float) -> float:
    """Warm up over 1 %, hold, then fall in a line from 35 % to the end."""
    if share < 0.01:
        return max(share / 0.01, 0.02)
    return 1.0 if share < 0.35 else max((1.0 - share) / 0.65, 0.01)


def learned_logits(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Logits (N, V) at the positions of `batch` that are learned; no others are made."""
    device = model.device
    hidden = model.model(torch.from_numpy(batch.inputs).long().to(device)).last_hidden_state
    chosen = hidden.reshape(-1, hidden.shape[-1])[torch.from_numpy(batch.learned).long().to(device)]
    return torch.nn.functional.linear(chosen, model.model.embed_tokens.weight)


class Trainer:
    """One process of a run: the whole model, its own part of every step's data."""

    settings = SETTINGS

    def __init__(self, plan: Plan, rank: int = 0):
        self.plan, self.rank = plan, rank
        self.model = new_model(self.settings, seed=0).to(plan.device)
        self.parameters = dict(self.model.named_parameters())
        self.progress = Progress()
        self.stopping = False
        matrices = {n: w for n, w in self.parameters.items() if w.ndim == 2 and "embed" not in n}
        others = [w for n, w in self.parameters.items() if n not in matrices]
        self.muon = Muon(list(matrices.values()), rank, plan.workers)
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
        self.tokenizer = Tokenizer.from_file(str(plan.folder / "tokenizer.json"))
        self._resume()

    @staticmethod
    def prepare(arguments: argparse.Namespace) -> None:
        """Put what the run begins with into its folder."""
        if not (arguments.out / "tokenizer.json").exists():
            write_tokenizer(train_tokenizer(), arguments.out)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Summed cross-entropy of the learned tokens."""
        targets = torch.from_numpy(batch.targets).long().to(self.plan.device)
        return torch.nn.functional.cross_entropy(learned_logits(self.model, batch), targets, reduction="sum")

    @property
    def share(self) -> float:
        return min(self.progress.tokens / self.plan.tokens, 1.0)

    @property
    def quantizing(self) -> bool:
        return self.share >= self.plan.quantize_from

    def mix(self) -> Mix:
        """The mix of data: at first more arithmetic, which needs the most practice; later the rest."""
        return LATE if self.share > LATE_FROM else EARLY

    def step(self, batch: Batch) -> float:
        """One update; returns the mean loss of a learned token."""
        weights = [weight.data for weight in self.parameters.values()]
        if self.quantizing:
            # The gradient is taken at the rounded weights and applied to the full ones (straight-through).
            for parameter in self.parameters.values():
                parameter.data = rounded_tensor(parameter.data)
        loss = self.loss(batch)
        loss.backward()
        for parameter, weight in zip(self.parameters.values(), weights, strict=True):
            parameter.data = weight
        loss_sum, learned, tokens = self._share_gradients(loss.item(), batch)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        factor = learning_rate_factor(self.share)
        self.muon.step(MUON_RATE * factor)
        self.adamw.param_groups[0]["lr"] = ADAMW_RATE * factor
        self.adamw.step()
        self.model.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += tokens
        return loss_sum / learned

    def _share_gradients(self, loss: float, batch: Batch) -> tuple[float, int, int]:
        """Sum gradients over the processes, divide by the learned tokens; the sums of loss and tokens."""
        gradients = [parameter.grad for parameter in self.parameters.values()]
        counts = torch.tensor(
            [loss, len(batch.learned), batch.inputs.size, self.stopping], dtype=torch.float64
        )
        if self.plan.workers > 1:
            gradients = summed(gradients)
            distributed.all_reduce(counts)
        loss_sum, learned, tokens, stopping = counts.tolist()
        self.stopping = bool(stopping)  # of any process: all end after the same step
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient / learned
        return loss_sum, int(learned), int(tokens)

    def save(self) -> None:
        folder = self.plan.folder
        weights = {name: weight.data.contiguous() for name, weight in self.parameters.items()}
        save_file(weights, folder / "parameters.safetensors")
        save_file(self._optimizer_state(), folder / "optimizer.safetensors")
        (folder / "progress.json").write_text(json.dumps(asdict(self.progress)))
        write_checkpoint(weights, self.settings, folder / "checkpoint")
        write_tokenizer(self.tokenizer, folder / "checkpoint")
        shutil.copy(TEMPLATE_FILE, folder / "checkpoint")

    def _optimizer_state(self) -> dict[str, torch.Tensor]:
        state = {f"muon.{i}": momentum for i, momentum in enumerate(self.muon.momenta)}
        for i, entry in self.adamw.state_dict()["state"].items():
            state |= {f"adamw.{i}.{key}": value for key, value in entry.items()}
        return state

    def _resume(self) -> None:
        folder = self.plan.folder
        if not (folder / "progress.json").exists():
            return
        self.progress = Progress(**json.loads((folder / "progress.json").read_text()))
        self.progress.starts += 1  # new data
        for name, weight in load_file(folder / "parameters.safetensors").items():
            self.parameters[name].data.copy_(weight)
        state = load_file(folder / "optimizer.safetensors")
        for i, momentum in enumerate(self.muon.momenta):
            momentum.copy_(state[f"muon.{i}"])
        adamw = self.adamw.state_dict()
        for name, value in state.items():
            if name.startswith("adamw."):
                _, i, key = name.split(".")
                adamw["state"].setdefault(int(i), {})[key] = value
        self.adamw.load_state_dict(adamw)

    def data(self) -> Iterator[Batch]:
        """Batches of this process: no other, and no other start of the run, sees the same ones."""
        seed = 1 + 1000 * self.progress.starts + self.rank
        return batches(self.tokenizer, seed, self.plan.tokens_per_step // self.plan.workers, self.mix)

    def check(self) -> float:
        """The measure of the log: the share of held-out three-digit additions answered right."""
        problems = held_out_additions(40, seed=self.progress.step)
        with closing(Checkpoint(self.plan.folder / "checkpoint")) as checkpoint:
            replies = checkpoint.replies([f"What is {problem.a} + {problem.b}?" for problem in problems])
        right = [
            reply.endswith(f"</think>\n\n{p.answer}") for p, reply in zip(problems, replies, strict=True)
        ]
        return sum(right) / len(right)

    def run(self) -> None:
        source = self.data()
        log = self._open_log() if self.rank == 0 else None
        next_report, next_check = self.progress.seconds, self.progress.seconds + CHECK_EVERY / 2
        recent: list[float] = []
        while self.share < 1.0 and not self.stopping:
            started = time.monotonic()
            recent.append(self.step(next(source)))
            self.progress.seconds += time.monotonic() - started
            if log is None or (self.progress.seconds < next_report and self.share < 1.0):
                continue
            accuracy: float | str = ""
            if self.progress.seconds >= next_check or self.share >= 1.0:
                self.save()
                accuracy = self.check()
                next_check += CHECK_EVERY
            next_report += REPORT_EVERY
            row = [self.progress.step, self.progress.tokens, round(self.progress.seconds)]
            row += [round(sum(recent) / len(recent), 5), accuracy, int(self.quantizing)]
            csv.writer(log, lineterminator="\n").writerow(row)
            log.flush()
            print(time.strftime("%H:%M:%S"), *row, flush=True)
            recent = []
        if log is not None:
            log.close()
            self.save()

    def _open_log(self):
        path = self.plan.folder / "log.csv"
        is_new = not path.exists()
        log = path.open("a", newline="")
        if is_new:
            log.write("step,tokens,seconds,loss,accuracy,rounding\n")
        return log

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


def run_worker(rank: int, kind: type[Trainer], plan: Plan) -> None:
    """One process of a run; they meet through a file of its folder."""
    torch.set_num_threads(1 if plan.workers > 1 else os.cpu_count() or 1)
    if plan.workers > 1:
        meeting = f"file://{plan.folder.absolute()}/meeting"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=plan.workers)
    trainer = kind(plan, rank)
    signal.signal(signal.SIGTERM, lambda *_: trainer.stop())
    signal.signal(signal.SIGINT, lambda *_: trainer.stop())
    trainer.run()


def train(kind: type[Trainer], description: str | None, tokens: int) -> None:
    """Run `kind` with the settings of the command line; `tokens` is the default length."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--tokens", type=float, default=tokens, help="tokens to train on, padding included")
    parser.add_argument(
        "--quantize-from",
        type=float,
        default=0.8,
        help="share of the tokens after which 4-bit rounding starts",
    )
    parser.add_argument("--tokens-per-step", type=int, default=4096)
    parser.add_argument("--teacher", type=Path, help="the demo's run, for its draft model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workers = 1 if device == "cuda" else os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=workers, help="processes that share a step")
    arguments = parser.parse_args()
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    kind.prepare(arguments)
    plan = Plan(
        folder,
        int(arguments.tokens),
        arguments.tokens_per_step,
        arguments.quantize_from,
        arguments.workers,
        device,
    )
    torch.multiprocessing.spawn(run_worker, (kind, plan), nprocs=plan.workers)


if __name__ == "__main__":
    train(Trainer, __doc__, tokens=30_000_000)
