"""A model that says what a test wrote for it, on a byte tokenizer, behind the real engine and session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Encoder

import mlx_qwen3
from mlx_qwen3.cache.batch import SequenceCaches
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.window.rotating import RotatingKVCache
from mlx_qwen3.checkpoint.load import LoadedModel
from mlx_qwen3.checkpoint.memory import MemoryEstimate
from mlx_qwen3.checkpoint.memory_plan import MemoryPlan
from mlx_qwen3.engine.turn_output import EARLY_END
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.tokenizer import Tokenizer

CONTROL_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
]


def write_byte_tokenizer(folder: Path) -> Path:
    """A checkpoint's tokenizer files: one token a byte, Qwen3's control tokens, the demo's template."""
    alphabet = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Encoder(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in CONTROL_TOKENS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    template = Path(mlx_qwen3.__file__).parent / "demo" / "chat_template.jinja"
    shutil.copy(template, folder / "chat_template.jinja")
    return folder


def loaded(model: ScriptedModel, folder: Path) -> LoadedModel:
    """`model` as an engine gets it, planned for a large memory."""
    context, nothing = model.args.context_length, MemoryEstimate(0, 0, 0)
    plan = MemoryPlan(context, context, nothing, available=10**12)
    return LoadedModel(model, plan, folder)  # type: ignore[arg-type]


class ScriptedModel:
    """Says in each turn what a test scripted for it, then ends the turn.

    `fed` records every id it was given; `before_step` is called with the length of each input.
    """

    def __init__(self, tokenizer: Tokenizer, context: int = 4096):
        self.args = ModelConfig(
            model_type="qwen3",
            hidden_size=64,
            num_hidden_layers=2,
            intermediate_size=64,
            num_attention_heads=1,
            num_key_value_heads=1,
            vocab_size=tokenizer.vocab_size,
            max_position_embeddings=context,
        )
        self.turns: list[list[int]] = []
        self.fed: list[int] = []
        self.before_step: Callable[[int], None] = lambda length: None
        self.between_layers: Callable[[], None] = lambda: None
        self._fed_to: dict[int, list[int]] = {}  # by cache: conversations may take turns
        self._rest: dict[int, list[int]] = {}
        self._latest: dict[int, int] = {}
        self._start, self._end = (tokenizer.control_tokens[name] for name in ("<|im_start|>", "<|im_end|>"))
        self._early_end = tokenizer.encode(EARLY_END)
        opening = "<|im_start|>assistant\n"
        self._openings = [
            tokenizer.encode(text, control_tokens=True)
            for text in (opening, opening + "<think>\n\n</think>\n\n")
        ]

    def scale_positions(self, scaling: RopeScaling | None) -> None:
        self.args = replace(self.args, rope_scaling=scaling)

    def use_adapter(self, name: str | None) -> None:
        assert name is None

    def make_cache(self, **options: Any) -> list[Any]:
        if "max_size" in options:
            return [RotatingKVCache(options["max_size"]) for _ in range(self.args.num_hidden_layers)]
        return [KVCache() for _ in range(self.args.num_hidden_layers)]

    @property
    def output_head(self) -> Callable[[mx.array], mx.array]:
        """`hidden_states` are logits already."""
        return lambda hidden: hidden

    def hidden_states(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        return self(inputs, cache)

    def __call__(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        if isinstance(cache[0], SequenceCaches):  # several conversations, each on its own
            outputs = []
            for number, part in enumerate(cache[0].parts):
                own = [layer.caches[number] for layer in cache]
                outputs.append(self(inputs[part].reshape(1, -1), own)[0][:, None])
            return mx.concatenate(outputs)
        length, held = inputs.shape[1], cache[0].offset
        self.before_step(length)
        ids: Any = inputs[0].tolist()
        self.fed += ids
        for layer in cache:
            rows = mx.zeros((1, 1, length, 4))
            layer.update_and_fetch(rows, rows)
            self.between_layers()
        tokens = mx.array(self._next(id(cache[0]), held, ids))
        return mx.where(mx.arange(self.args.vocab_size) == tokens[:, None], 100.0, 0.0)[None]

    def _next(self, conversation: int, held: int, ids: list[int]) -> list[int]:
        """What comes after each of `ids`: the script's next tokens as far as `ids` are a draft of them."""
        fed = self._fed_to[conversation] = self._fed_to.get(conversation, [])[:held] + ids
        rest = self._rest.get(conversation, [])
        is_prompt = self._start in ids and ids[0] != self._latest.get(conversation)  # or a draft of one
        if is_prompt:
            rest = []
        if not rest and any(fed[-len(opening) :] == opening for opening in self._openings):
            rest = list(self.turns.pop(0))
        self._rest[conversation] = rest
        tokens = [self._end] * len(ids)
        is_draft = not is_prompt and ids[: len(self._early_end)] != self._early_end
        for place in range(0 if is_draft else len(ids) - 1, len(ids)):
            tokens[place] = self._latest[conversation] = rest.pop(0) if rest else self._end
            if ids[place + 1 : place + 2] != [tokens[place]]:
                break
        return tokens


def script(engine: Any, *turns: str) -> ScriptedModel:
    """Have the ScriptedModel of `engine` say `turns`, one after the other."""
    model: ScriptedModel = engine.model
    model.turns = [engine.tokenizer.encode(text, control_tokens=True) for text in turns]
    return model
