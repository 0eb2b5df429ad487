"""Raw completion: text in, the text that follows out. No template, no conversation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlx_qwen3.cache.prompt import make_prompt_cache
from mlx_qwen3.decode import decode, prefill
from mlx_qwen3.delivery import listen
from mlx_qwen3.errors import MessageError
from mlx_qwen3.events import AnswerDelta
from mlx_qwen3.jobs import Job, Steps
from mlx_qwen3.loops import LoopDetector
from mlx_qwen3.sampling import Sampler, SamplingParams

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine


def complete(engine: Engine, ids: list[int], params: SamplingParams) -> Iterator[str]:
    """The text that follows `ids`, as it comes, until the model ends it, it loops, or `max_tokens`.

    Leaving the loop early stops the model. Raises MessageError for a prompt that is empty or too long.
    """
    if not ids:
        raise MessageError("the prompt is empty; there is nothing to complete")
    if len(ids) >= engine.context:
        raise MessageError(f"the prompt has {len(ids):,} tokens and the context holds {engine.context:,}")
    for event in listen(lambda sink: engine.submit(lambda job: _steps(job, engine, ids, params), sink)):
        yield event.text


def _steps(job: Job, engine: Engine, ids: list[int], params: SamplingParams) -> Steps:
    """On the engine's thread: prefill, then a token a step."""
    cache = make_prompt_cache(engine.model)
    for _ in prefill(engine.model, ids[:-1], cache):
        yield []
        if job.is_cancelled():
            return
    stream, loop = engine.tokenizer.stream(), LoopDetector()
    limit = min(params.max_tokens, engine.context - len(ids))
    sampler = Sampler(params, engine.model.args.vocab_size)
    for count, token in enumerate(decode(engine.model, ids[-1:], cache, sampler), 1):
        is_end = token in engine.tokenizer.eos_token_ids
        if not is_end and (text := stream.push(token)):
            yield [AnswerDelta(text)]
        if is_end or count >= limit or job.is_cancelled() or loop.push(token):
            break
        yield []
    if rest := stream.finish():
        yield [AnswerDelta(rest)]
