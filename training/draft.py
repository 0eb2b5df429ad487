"""Train the demo's draft model: `python -m training.draft --out DIR`.

It has a quarter of the demo's size. The loss is the cross-entropy to the demo's own distribution on the
demo's training texts. What counts is how often the demo accepts its tokens: at most the probability that both
distributions share.
"""

import mlx_qwen3  # noqa: F401  # isort: skip  # loads the fast BLAS before MLX
import mlx.core as mx
from tokenizers import Tokenizer

from mlx_qwen3 import load_model
from mlx_qwen3.checkpoint.locate import DEMO_FOLDER
from mlx_qwen3.model.qwen3 import Model
from training.data import Batch, batches
from training.quantization import round_parameters
from training.tokenizer import write_tokenizer
from training.train import SETTINGS, Trainer, train

DRAFT_SETTINGS = SETTINGS | {
    "head_dim": 32,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
}


def learned_logits(model: Model, batch: Batch) -> mx.array:
    """Logits (N, V) at the positions of `batch` that are learned."""
    hidden = model.model(mx.array(batch.inputs))
    chosen = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.learned)]
    return model.model.embed_tokens.as_linear(chosen)


class DraftTrainer(Trainer):
    """Trains on the demo's distribution instead of the tokens of the text."""

    settings = DRAFT_SETTINGS

    def _tokenizer(self) -> Tokenizer:
        self.teacher = load_model("demo")
        tokenizer = Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json"))
        write_tokenizer(tokenizer, self.folder)
        return tokenizer

    def _loss(self, parameters: dict, batch: Batch, total: int) -> mx.array:
        self.model.update(parameters)
        expected = mx.softmax(mx.stop_gradient(learned_logits(self.teacher, batch)), axis=-1)
        logits = learned_logits(self.model, batch)
        return mx.sum(mx.logsumexp(logits, axis=-1) - (expected * logits).sum(axis=-1)) / total

    def accuracy(self, count: int = 8) -> float:
        """The expected acceptance rate at temperature 1, over `count` new batches."""
        self.model.update(round_parameters(self.parameters))
        source = batches(self.tokenizer, 10**6 + self.progress.step, 2048, self.mix, pool=64)
        shared = []
        for _ in range(count):
            batch = next(source)
            both = [mx.softmax(learned_logits(model, batch), axis=-1) for model in (self.model, self.teacher)]
            shared += mx.minimum(*both).sum(axis=-1).tolist()
        return sum(shared) / len(shared)


if __name__ == "__main__":
    train(DraftTrainer, __doc__, minutes=20.0)
