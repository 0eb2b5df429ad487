"""Sampled text for many prompts at once: prompts of one length are decoded as one batch."""

from collections import defaultdict

import mlx.core as mx

from mlx_qwen3.model.qwen3 import Model


def sample(logits: mx.array, temperature: float, top_p: float, top_k: int) -> mx.array:
    """One token a row, from logits (B, V): temperature, then top-k, then top-p."""
    if temperature == 0:
        return mx.argmax(logits, axis=-1)
    order = mx.argsort(-logits, axis=-1)[:, :top_k]
    best = mx.take_along_axis(logits, order, axis=-1) / temperature
    probabilities = mx.softmax(best, axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    best = mx.where(before < top_p, best, -mx.inf)
    choice = mx.random.categorical(best)
    return mx.take_along_axis(order, choice[:, None], axis=-1)[:, 0]


def complete_batch(
    model: Model, prompts: list[list[int]], stop: int, limit: int, sampling: dict
) -> list[list[int]]:
    """Continuations of prompts of one length, without the stop token."""
    cache = model.make_cache()
    tokens = mx.array(prompts)
    finished = [False] * len(prompts)
    outputs: list[list[int]] = [[] for _ in prompts]
    for _ in range(limit):
        logits = model(tokens, cache)[:, -1, :]
        chosen = sample(logits, **sampling)
        mx.eval(chosen)
        for row, token in enumerate(chosen.tolist()):
            finished[row] = finished[row] or token == stop
            if not finished[row]:
                outputs[row].append(token)
        if all(finished):
            break
        tokens = chosen[:, None]
    return outputs


def complete(
    model: Model, prompts: list[list[int]], stop: int, thinking: bool, limit: int = 320
) -> list[list[int]]:
    """What the assistant writes after each prompt, sampled with Qwen3's presets."""
    preset = {"temperature": 0.6, "top_p": 0.95} if thinking else {"temperature": 0.7, "top_p": 0.8}
    by_length = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    outputs: list[list[int]] = [[] for _ in prompts]
    for indices in by_length.values():
        texts = complete_batch(model, [prompts[i] for i in indices], stop, limit, {**preset, "top_k": 20})
        for index, text in zip(indices, texts, strict=True):
            outputs[index] = text
    return outputs
