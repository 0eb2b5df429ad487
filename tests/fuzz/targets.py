"""What reads files of others, and a sound file of each kind to mutate."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
from fuzz.mutations import mutate
from tiny_checkpoints import DENSE, MOE, random_model, write_checkpoint

from mlx_qwen3 import load_model, load_tokenizer
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.checkpoint.locate import DEMO_FOLDER
from mlx_qwen3.cli.batch_file import ResultFile, read_requests
from mlx_qwen3.cli.chat import preferences
from mlx_qwen3.cli.chat.saved_conversations import ConversationStore
from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.tools.approval import Answer, ApprovalRequest, Approvals, Choice
from mlx_qwen3.tools.builtin import calculator, get_time
from mlx_qwen3.tools.mcp.config import load_config

CALL = {"name": "f", "arguments": {"x": 1}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting.", "tool_calls": [CALL]},
    {"role": "tool", "content": "2"},
]
MCP = {
    "mcpServers": {
        "files": {"command": "npx", "args": ["-y", "server", "${HOME}"], "env": {"A": "b"}, "timeout": 5},
        "web": {"url": "https://example.com/mcp", "headers": {"X-Key": "1"}},
    }
}


@dataclass
class Target:
    """A kind of file. `use` reads what lies in `folder`; `file` in it is mutated."""

    name: str
    form: str
    folder: Path
    file: str
    use: Callable[[Path], object]
    weight: int = 10
    sound: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.sound = (self.folder / self.file).read_bytes()

    def mutated(self, seed: int) -> bytes:
        """The file with the mutations of this seed."""
        return mutate(self.sound, self.form, random.Random(f"{self.name} {seed}"))

    def run(self, data: bytes) -> Qwen3Error | None:
        """Read the file with `data` in it. Returns the error, if it is one of ours; raises others."""
        path = self.folder / self.file
        path.write_bytes(data)
        try:
            self.use(self.folder)
        except Qwen3Error as error:
            return error
        finally:
            path.write_bytes(self.sound)
        return None


def make_targets(folder: Path) -> list[Target]:
    """All kinds of files, sound ones written in folders of their own."""
    return [*_models(folder), *_tokenizers(folder), *_caches(folder), *_texts(folder), *_gguf(folder)]


def _models(folder: Path) -> list[Target]:
    targets = []
    for name, raw, shards in (("dense", DENSE, 1), ("moe", MOE, 1), ("sharded", DENSE, 3)):
        place = folder / name
        place.mkdir(parents=True)
        write_checkpoint(place, raw, shards=shards)
        targets.append(Target(f"{name} config", "json", place, "config.json", _use_model, 12))
        weights = sorted(path.name for path in place.glob("*.safetensors"))[0]
        targets.append(Target(f"{name} weights", "safetensors", place, weights, _use_model, 8))
        if shards > 1:
            index = "model.safetensors.index.json"
            targets.append(Target(f"{name} index", "json", place, index, _use_model))
    return targets


def _use_model(folder: Path) -> None:
    model = load_model(folder)
    mx.eval(model(mx.array([[1, 2, 3]])))


def _tokenizers(folder: Path) -> list[Target]:
    place = folder / "tokenizer"
    place.mkdir(parents=True)
    for path in DEMO_FOLDER.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copy(path, place)
    return [
        Target("tokenizer", "json", place, "tokenizer.json", _use_tokenizer, 6),
        Target("tokenizer config", "json", place, "tokenizer_config.json", _use_tokenizer, 6),
        Target("generation config", "json", place, "generation_config.json", _use_tokenizer, 6),
        Target("template", "text", place, "chat_template.jinja", _use_tokenizer, 1),
    ]


def _use_tokenizer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.apply_chat_template(CONVERSATION)
    tokenizer.decode([*ids, *tokenizer.eos_token_ids])


def _caches(folder: Path) -> list[Target]:
    model, made_with = random_model(DENSE), {"model": "m"}
    targets = []
    for name, options in {
        "plain": {},
        "packed": {"bits": 8, "group_size": 32},
        "window": {"max_size": 12},
    }.items():
        config = CacheConfig(**options)
        place = folder / f"{name} cache"
        place.mkdir(parents=True)
        cache = PromptCache(model, config)
        ids = cache.begin(list(range(20)))
        model(mx.array([ids]), cache.layers)
        cache.extend(ids)
        cache.save(place / "a.safetensors", made_with)

        def use(folder: Path, config: CacheConfig = config) -> None:
            loaded = PromptCache.load(model, folder / "a.safetensors", made_with, config)
            rest = loaded.begin([*range(20), 50, 51])
            mx.eval(model(mx.array([rest]), loaded.layers))

        targets.append(Target(f"{name} cache", "safetensors", place, "a.safetensors", use, 8))
    return targets


def _texts(folder: Path) -> list[Target]:
    place = folder / "texts"
    place.mkdir(parents=True)
    talk = Conversation([dict(message) for message in CONVERSATION])
    talk.save(place / "talk.json", {"thinking": True, "thinking_budget": 5, "sampling": {"temperature": 0.5}})
    settings = {"model": "14b", "thinking": False, "thinking_budget": 9, "sampling": {"top_p": 0.5}}
    (place / "settings.json").write_text(json.dumps(settings))
    approvals = Approvals(place / "approvals.json", ask=lambda question: Answer(Choice.TOOL))
    for tool in (calculator, get_time):
        approvals(ApprovalRequest(tool, {}))
    (place / "mcp.json").write_text(json.dumps(MCP))
    requests = [{"prompt": "a", "temperature": 0.5, "stop": ["x"]}, {"messages": CONVERSATION[:2], "seed": 1}]
    lines = "\n".join(map(json.dumps, requests))
    (place / "requests.jsonl").write_text(lines)
    partial = ResultFile(place / "out", read_requests(lines, "requests"), {})
    partial.add(0, json.dumps({"id": 1, "text": "b", "finish_reason": "stop"}))
    partial._file.close()

    def use_partial(folder: Path) -> None:
        results = ResultFile(folder / "out", read_requests(lines, "requests"), {})
        results._file.close()
        assert all(isinstance(json.loads(line), dict) for line in results.done.values())

    def use_requests(folder: Path) -> None:
        read_requests((folder / "requests.jsonl").read_text(errors="replace"), "requests")

    def use_talk(folder: Path) -> None:
        ConversationStore(folder).list()
        loaded, saved = Conversation.load(folder / "talk.json")
        loaded.branch().save(folder / "copy.json", saved)
        assert isinstance(loaded.title, str)

    def use_settings(folder: Path) -> None:
        preferences.data_folder = lambda: folder
        loaded = preferences.load_preferences()
        preferences.remember(**loaded)

    def use_approvals(folder: Path) -> None:
        found = Approvals(folder / "approvals.json")
        found.allowed()
        found.is_allowed(calculator)
        found.forget("calculator")

    return [
        Target("conversation", "json", place, "talk.json", use_talk),
        Target("settings", "json", place, "settings.json", use_settings),
        Target("approvals", "json", place, "approvals.json", use_approvals),
        Target("mcp", "json", place, "mcp.json", lambda folder: load_config(folder / "mcp.json")),
        Target("requests", "lines", place, "requests.jsonl", use_requests),
        Target("partial", "lines", place, "out.partial", use_partial),
    ]


def _gguf(folder: Path) -> list[Target]:
    try:
        import gguf
        from gguf_files import gguf_weights, write_gguf
    except ImportError:
        return []
    from mlx_qwen3 import conversion

    place = folder / "gguf"
    place.mkdir(parents=True)
    config = json.loads((DEMO_FOLDER / "config.json").read_text())
    raw = DENSE | {"vocab_size": config["vocab_size"]}
    write_gguf(place / "a.gguf", raw, gguf_weights(raw), gguf.GGMLQuantizationType.Q8_0, DEMO_FOLDER)
    return [Target("gguf", "gguf", place, "a.gguf", lambda folder: conversion.plan(folder / "a.gguf"), 8)]
