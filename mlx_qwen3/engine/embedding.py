"""Embeddings of texts, and scores of documents: Qwen3-Embedding and Qwen3-Reranker.

Both read the hidden state of a text's last token. Texts of similar length share a pass of the model, padded
at the end: no token sees what follows it, so a text's result does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.errors import EngineError, MessageError, PromptTooLongError
from mlx_qwen3.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Tokens of a pass, padding included. Between two passes the engine serves others.
CPU_TOKENS, GPU_TOKENS = 1024, 8192
END_OF_TEXT = "<|endoftext|>"
# The prompts that Qwen3-Embedding and Qwen3-Reranker were trained with.
DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
QUERY = "Instruct: {instruction}\nQuery:{text}"
JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
PAIR = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
VERDICT = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def embed(
    core: EngineCore,
    texts: Iterable[str],
    instruction: str | None,
    dimensions: int | None,
    adapter: str | None,
) -> NDArray[np.float32]:
    """`Engine.embed`, which documents it."""
    name = core.known_adapters.find(adapter)
    prompts = _texts("texts", texts)
    width = core.config.hidden_size
    if dimensions is not None and (
        isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= width
    ):
        raise EngineError(f"dimensions must be from 1 to {width:,}, not {dimensions!r}")
    _check_text("instruction", instruction)
    if instruction is not None:
        prompts = [QUERY.format(instruction=instruction, text=text) for text in prompts]
    end = _token(core.tokenizer, END_OF_TEXT)
    ids = [[*core.tokenizer.encode(text), end] for text in prompts]
    _check_lengths("text", ids, core.context)

    def vectors(hidden: mx.array) -> mx.array:
        hidden = hidden[:, :dimensions]
        return hidden / mx.maximum(mx.linalg.norm(hidden, axis=-1, keepdims=True), 1e-12)

    return _of_last_tokens(core, ids, vectors, dimensions or width, name)


def rerank(
    core: EngineCore, query: str, documents: Iterable[str], instruction: str | None, adapter: str | None
) -> list[float]:
    """`Engine.rerank`, which documents it."""
    name = core.known_adapters.find(adapter)
    if not core.config.has_output_head:
        raise EngineError(f"{core.name} has no output head, so it cannot judge; use a Qwen3-Reranker")
    _check_text("instruction", instruction)
    if not isinstance(query, str):
        raise MessageError(f"query must be text, not {type(query).__name__}")
    instruction = DEFAULT_INSTRUCTION if instruction is None else instruction
    tokenizer = core.tokenizer
    before, after = (tokenizer.encode(text, control_tokens=True) for text in (JUDGE, VERDICT))
    ids = []
    for document in _texts("documents", documents):
        pair = PAIR.format(instruction=instruction, query=query, document=document)
        ids.append([*before, *tokenizer.encode(pair), *after])
    _check_lengths("document", ids, core.context)
    answers = [_token(tokenizer, "no"), _token(tokenizer, "yes")]

    def scores(logits: mx.array) -> mx.array:
        logits = logits[:, mx.array(answers)]
        return mx.sigmoid(logits[:, 1:] - logits[:, :1])

    result: list[float] = _of_last_tokens(core, ids, scores, 1, name, head=True)[:, 0].tolist()
    return result


def _of_last_tokens(
    core: EngineCore,
    ids: Sequence[Sequence[int]],
    function: Callable[[mx.array], mx.array],
    width: int,
    adapter: str | None,
    head: bool = False,
) -> NDArray[np.float32]:
    """`function` of the last tokens' hidden states (B, hidden) -> (B, width), for every text: (N, width).

    head: it is given logits (B, V) in their place.
    """
    result = np.empty((len(ids), width), np.float32)
    for batch in _batches([len(text) for text in ids], CPU_TOKENS if is_cpu() else GPU_TOKENS):

        def run(batch: Sequence[int] = batch) -> NDArray[np.float32]:
            core.model.use_adapter(adapter)
            core.model.scale_positions(core.config.rope_scaling)
            values = function(_after_texts(core, [ids[index] for index in batch], head))
            return np.array(values.astype(mx.float32))

        result[batch] = core.call(run)
    return result


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of texts in groups of similar length, at most `most` padded tokens each; longest first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _after_texts(core: EngineCore, texts: Sequence[Sequence[int]], head: bool) -> mx.array:
    """Of the last tokens the hidden states, or with `head` the logits, in fp32. On the engine's thread."""
    if core.ranks is not None:
        result: mx.array = core.model.after_texts(texts, CPU_TOKENS if is_cpu() else GPU_TOKENS, head)
        return result.astype(mx.float32)
    hidden = _last_hidden_states(core, texts)
    return core.model.output_head(hidden[:, None])[:, 0].astype(mx.float32) if head else hidden


def _last_hidden_states(core: EngineCore, texts: Sequence[Sequence[int]]) -> mx.array:
    """The hidden states of the last tokens, in fp32: (B, hidden)."""
    lengths = mx.array([len(text) for text in texts])
    longest = max(len(text) for text in texts)
    inputs = mx.array([[*text, *[0] * (longest - len(text))] for text in texts], mx.uint32)  # (B, L)
    step = max(1, (CPU_TOKENS if is_cpu() else GPU_TOKENS) // len(texts))
    if longest <= step:
        hidden = core.model.model(inputs)  # (B, L, hidden)
        return mx.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0].astype(mx.float32)
    cache = core.model.make_cache()  # one long text, since a batch has at most `step` columns
    for start in range(0, longest, step):
        hidden = core.model.hidden_states(inputs[:, start : start + step], cache)
        mx.eval(hidden, [layer.state for layer in cache])
    return hidden[:, -1].astype(mx.float32)


def _token(tokenizer: Tokenizer, text: str) -> int:
    """The id of the one token spelled `text`. Raises EngineError."""
    ids = tokenizer.encode(text, control_tokens=True)
    if len(ids) != 1:
        raise EngineError(f"this tokenizer has no token {text}, which Qwen3's embeddings and scores need")
    return ids[0]


def _texts(name: str, values: Iterable[str]) -> list[str]:
    """`values` as a list. Raises MessageError unless they are texts."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise MessageError(f"{name} must be a list of texts, not {type(values).__name__}")
    texts = list(values)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise MessageError(f"{name}[{index}] must be text, not {type(text).__name__}")
    return texts


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise MessageError(f"{name} must be text or None, not {type(value).__name__}")


def _check_lengths(name: str, ids: Sequence[Sequence[int]], longest: int) -> None:
    for index, text in enumerate(ids):
        if len(text) > longest:
            raise PromptTooLongError(
                f"{name} {index} has {len(text):,} tokens and the model reads {longest:,}; divide it"
            )
