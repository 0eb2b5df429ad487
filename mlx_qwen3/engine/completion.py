"""Raw completion: text in, the text that follows out. No template, no conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from mlx_qwen3.cache.prompt_cache import make_layer_caches
from mlx_qwen3.engine.job import Job, Steps
from mlx_qwen3.engine.streams import listen
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import AnswerDelta, FinishReason
from mlx_qwen3.generation.decode import decode, prefill
from mlx_qwen3.generation.sampling import Sampler, SamplingParams
from mlx_qwen3.generation.speculative import Speculation
from mlx_qwen3.generation.stopping import Ending
from mlx_qwen3.tokenizer import Tokenizer

if TYPE_CHECKING:
    from mlx_qwen3.engine.engine import Engine


def complete(engine: Engine, ids: list[int], params: SamplingParams) -> Iterator[str]:
    """The text that follows `ids`, as it comes, until the model ends it, it loops, or `max_tokens`.

    Leaving the loop early stops the model. Raises MessageError for a prompt that is empty or too long.
    """
    check_prompt(ids, engine.context)
    for event in listen(lambda sink: engine.submit(lambda job: _steps(job, engine, ids, params), sink)):
        yield event.text


def check_prompt(ids: Sequence[int], context: int) -> None:
    """Raises MessageError for a prompt that is empty, or leaves no room in a context of so many tokens."""
    if not ids:
        raise MessageError("the prompt is empty; there is nothing to complete")
    if len(ids) >= context:
        raise MessageError(f"the prompt has {len(ids):,} tokens and the context holds {context:,}")


def _steps(job: Job, engine: Engine, ids: list[int], params: SamplingParams) -> Steps:
    """On the engine's thread: prefill, then a token a step."""
    cache, drafter = make_layer_caches(engine.model, engine.cache_config), engine.drafter()
    for _ in chain(prefill(engine.model, ids[:-1], cache), drafter.begin(ids[:-1]) if drafter else ()):
        yield []
        if job.is_cancelled():
            return
    output = CompletionOutput(engine.tokenizer, min(params.max_tokens, engine.context - len(ids)))
    sampler = Sampler(params, engine.model.args.vocab_size)
    if drafter is None:
        tokens = decode(engine.model, ids[-1:], cache, sampler)
    else:
        tokens = Speculation(engine.model, cache, sampler, drafter).decode(ids[-1:])
    for token in tokens:
        text = output.take(token, job.is_cancelled())
        yield [AnswerDelta(text)] if text else []
        if output.finish_reason is not None:
            return


class CompletionOutput:
    """What a completion says, told token by token: `text`, and why it ended.

    limit: the most tokens it may have.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int):
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self._ending = Ending(tokenizer.eos_token_ids, limit)
        self._stream = tokenizer.stream()

    @property
    def generated(self) -> int:
        """Tokens the model wrote."""
        return self._ending.generated

    def take(self, token: int, is_cancelled: bool = False) -> str:
        """The text that `token` completes, often none; sets `finish_reason` if it was the last."""
        self.finish_reason = self._ending.take(token, is_cancelled)
        text = "" if self.finish_reason == "stop" else self._stream.push(token)
        if self.finish_reason is not None:
            text += self._stream.finish()
        self.text += text
        return text
