"""Train the demo's draft model: `python -m training.draft --teacher training/runs/demo --out DIR`.

It has a quarter of the demo's size. The loss is the cross-entropy to the demo's own distribution on the
demo's training texts. What counts is how often the demo accepts its tokens: at most the probability that both
distributions share.
"""

import argparse
import shutil

import torch
from safetensors.torch import load_file

from training.data import Batch, batches
from training.quantization import rounded_tensor
from training.train import SETTINGS, Plan, Trainer, learned_logits, new_model, train

DRAFT_SETTINGS = SETTINGS | {
    "head_dim": 32,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
}
TEACHER = "teacher.safetensors"


class DraftTrainer(Trainer):
    """Trains on the demo's distribution instead of the tokens of the text."""

    settings = DRAFT_SETTINGS

    def __init__(self, plan: Plan, rank: int = 0):
        super().__init__(plan, rank)
        self.teacher = new_model(SETTINGS, seed=0).to(plan.device)
        weights = load_file(plan.folder / TEACHER)
        for name, weight in self.teacher.named_parameters():
            weight.data = rounded_tensor(weights[name]).to(plan.device)
            weight.requires_grad_(False)

    @staticmethod
    def prepare(arguments: argparse.Namespace) -> None:
        """The weights and the tokenizer of the demo's run."""
        shutil.copy(arguments.teacher / "parameters.safetensors", arguments.out / TEACHER)
        shutil.copy(arguments.teacher / "tokenizer.json", arguments.out)

    def loss(self, batch: Batch) -> torch.Tensor:
        expected = torch.softmax(learned_logits(self.teacher, batch), dim=-1)
        logits = learned_logits(self.model, batch)
        return torch.nn.functional.cross_entropy(logits, expected, reduction="sum")

    @torch.no_grad()
    def check(self, count: int = 8) -> float:
        """The expected acceptance rate at temperature 1, over `count` new batches."""
        student = new_model(self.settings, seed=0)
        for name, weight in student.named_parameters():
            weight.data = rounded_tensor(self.parameters[name].data.cpu())
        source = batches(self.tokenizer, 10**6 + self.progress.step, 2048, self.mix, pool=64)
        shared = []
        for _ in range(count):
            batch = next(source)
            teacher = torch.softmax(learned_logits(self.teacher, batch).cpu(), dim=-1)
            shared.append(torch.minimum(torch.softmax(learned_logits(student, batch), dim=-1), teacher))
        return float(torch.cat(shared).sum(dim=-1).mean())


if __name__ == "__main__":
    train(DraftTrainer, __doc__, tokens=4_000_000)
