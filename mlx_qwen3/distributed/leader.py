"""Rank 0's side: a model whose passes and caches are repeated by all ranks.

Every pass and every change of a cache is told to the followers as plain values, in the order in which they
happen here. So collectives of two passes never interleave, however many conversations there are.
"""

from __future__ import annotations

import itertools
import secrets
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.layers import PART, CacheLayers
from mlx_qwen3.cache.prompt_cache import layer_shape, make_layer_cache
from mlx_qwen3.cache.saved_state import LayerShape
from mlx_qwen3.cache.serialization import read_metadata
from mlx_qwen3.distributed.channel import Connection, Message
from mlx_qwen3.errors import CacheError, EngineError
from mlx_qwen3.generation.forward import DecoderModel, joined
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.qwen3 import Model

SPLIT = "split"  # in the metadata of a cache in a file: how the model was split
# For the other ranks to write or read their parts of a cache.
KEEP_SECONDS = 120.0


class Shard(Protocol):
    """One rank's part of the model: TensorShard or PipelineShard."""

    model: Model

    def run(
        self,
        ids: mx.array | None,
        lengths: Sequence[int],
        caches: Sequence[CacheLayers],
        rows: Sequence[int],
        step: int,
        head: bool = True,
    ) -> tuple[mx.array | None, list[Any]]: ...

    def check(self, computed: list[Any], step: int) -> None: ...


class Followers:
    """The other ranks, as rank 0 sees them: what they are told, and how far they are."""

    def __init__(self, connections: Sequence[Connection]):
        self.connections = list(connections)
        self.step = 0
        """Messages sent so far."""
        self._done = {connection.rank: 0 for connection in connections}
        self._sent: deque[tuple[int, float]] = deque()  # passes that not all have finished, and when sent
        self.on_failure: Callable[[str], None] = lambda line: None  # noqa: ARG005  # set by the engine
        for connection in connections:
            connection.sink = self._listen(connection)

    def tell(self, message: Message, is_pass: bool = False) -> int:
        """Send a message to all; returns its number."""
        self.step += 1
        if is_pass:
            self._sent.append((self.step, time.monotonic()))
        for connection in self.connections:
            connection.send({"step": self.step, **message})
        return self.step

    def waiting_since(self) -> tuple[float, str] | None:
        """Since when the oldest unfinished pass is under way, and which rank has not finished it."""
        slowest = min(self.connections, key=lambda connection: self._done[connection.rank], default=None)
        if slowest is None:
            return None
        while self._sent and self._sent[0][0] <= self._done[slowest.rank]:
            self._sent.popleft()
        return (self._sent[0][1], str(slowest)) if self._sent else None

    def keep(self, message: Message) -> None:
        """Have all write or read their parts of a cache, as `message` says. Raises CacheError."""
        self.tell(message)
        for connection in self.connections:
            answer: Message | None = {}
            while answer is not None and answer.get("kept") != message[PART]:
                answer = connection.ask_soon(KEEP_SECONDS)
            problem = "no answer" if answer is None else answer["problem"]
            if problem:
                raise CacheError(f"{connection} did not {message['do']} its part of the KV cache: {problem}")

    def progress(self) -> dict[int, int]:
        """The number of the latest message that each rank has finished."""
        return dict(self._done)

    def end(self, reason: str | None = None) -> None:
        """Have all ranks end, with an error if there is a reason."""
        for connection in self.connections:
            connection.send({"do": "end", "reason": reason})
            connection.close()

    def _listen(self, connection: Connection) -> Callable[[Message], bool]:
        def listen(message: Message) -> bool:
            if "done" in message:
                self._done[connection.rank] = int(message["done"])
                return True
            if "failed" in message:
                self.on_failure(f"{connection}: {message['failed']}")
                return True
            return False

        return listen


class LeadingModel:
    """The model as rank 0's engine has it. `compute` runs a pass on all ranks."""

    def __init__(self, shard: Shard, followers: Followers, config: ModelConfig, split: str):
        """config: of the whole model. split: how it is split, for KV caches in files."""
        self.args = config
        self.model_type = config.model_type
        self.model = shard.model.model
        self._shard, self._followers, self._split = shard, followers, split
        self._numbers = itertools.count(1)
        self._dropped: deque[int] = deque()  # by finalizers, on any thread
        self._latest: list[Any] = []  # what the latest pass computes
        self._adapter: str | None = None

    @property
    def layers(self) -> list[Any]:
        """The layers of this rank."""
        return self._shard.model.layers

    def scale_positions(self, scaling: RopeScaling | None) -> None:
        """As of Model; the followers are told with the next pass."""
        self._shard.model.scale_positions(scaling)

    def use_adapter(self, name: str | None) -> None:
        """As of Model; the followers are told with the next pass."""
        self._adapter = name
        self._shard.model.use_adapter(name)

    def make_cache(self, **options: Any) -> CacheLayers:
        """An empty cache, here and on every follower. options: as of `Model.make_cache`."""
        config = CacheConfig(**options)
        layers = (make_layer_cache(config, layer.self_attn.rope) for layer in self.layers)
        number = next(self._numbers)
        self.tell({"do": "make", "cache": number, "options": asdict(config)})
        return SharedLayers(layers, self, number)

    def compute(
        self,
        model: DecoderModel,  # noqa: ARG002  # this one
        ids: mx.array,
        lengths: Sequence[int],
        caches: Sequence[Sequence[Cache]],
        rows: Sequence[int],
    ) -> mx.array | None:
        """Run a pass on all ranks; as `logits_at`."""
        return self._pass(ids, lengths, caches, rows)

    def after_texts(self, texts: Sequence[Sequence[int]], most: int, head: bool) -> mx.array:
        """Hidden states (B, D) after the last id of each text, or with `head` logits (B, V).

        most: ids of a pass. Only a text that is alone may have more: it is fed in parts.
        """
        caches = [self.make_cache() for _ in texts]
        parts = [texts]
        if len(texts) == 1:
            parts = [[texts[0][start : start + most]] for start in range(0, len(texts[0]), most)]
        result: mx.array | None = None
        for number, part in enumerate(parts, 1):
            lengths = [len(ids) for ids in part]
            rows = [end - 1 for end in itertools.accumulate(lengths)] if number == len(parts) else []
            result = self._pass(
                joined([list(ids) for ids in part], len(part) == 1), lengths, caches, rows, head
            )
            mx.eval(self._latest)
        assert result is not None  # of the last part
        return result

    def _pass(
        self,
        ids: mx.array,
        lengths: Sequence[int],
        caches: Sequence[Sequence[Cache]],
        rows: Sequence[int],
        head: bool = True,
    ) -> mx.array | None:
        layers = [each for each in caches if isinstance(each, SharedLayers)]
        if len(layers) != len(caches):
            raise EngineError("a KV cache that is not shared by the ranks cannot be used")
        scaling = self._shard.model.args.rope_scaling
        message: Message = {
            "do": "pass",
            "caches": [each.number for each in layers],
            "lengths": list(lengths),
            "rows": list(rows),
            "scaling": asdict(scaling) if scaling is not None else None,
            "adapter": self._adapter,
            "head": head,
        }
        step = self.tell(message)
        logits, self._latest = self._shard.run(ids, lengths, layers, rows, step, head)
        return logits

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        """Logits (1, L, V) of one sequence."""
        logits = self.compute(self, inputs, [inputs.size], [cache], range(inputs.size))
        assert logits is not None  # asked for after every id
        return logits[None]

    def hidden_states(self, inputs: mx.array, cache: Any) -> mx.array:  # noqa: ARG002  # as of Model
        raise EngineError("hidden states stay on the ranks that compute them; embed with one machine")

    @property
    def output_head(self) -> Callable[[mx.array], mx.array]:
        raise EngineError("the output head is shared by the ranks; use `compute`")

    def tell(self, message: Message) -> int:
        """Tell the followers of a change, and of caches that nothing uses any more."""
        self.tell_dropped()
        return self._followers.tell(message, is_pass=message["do"] == "pass")

    def tell_dropped(self) -> None:
        """Tell the followers of caches that nothing uses any more."""
        dropped = []
        while self._dropped:
            dropped.append(self._dropped.popleft())
        if dropped:
            self._followers.tell({"do": "drop", "caches": dropped})

    def settle(self) -> None:
        """Wait for the latest pass: a rank that left before it would leave the others waiting."""
        mx.eval(self._latest)
        self._latest = []

    def copied(self, layers: Iterable[Cache], source: int) -> SharedLayers:
        """A copy of the cache `source`, made of `layers` here, and on every follower."""
        number = next(self._numbers)
        self.tell({"do": "copy", "cache": source, "to": number})
        return SharedLayers(layers, self, number)

    def save(self, cache: SharedLayers, path: Path, metadata: Mapping[str, str]) -> None:
        """Write this rank's part of a cache to `path`; the others keep theirs. Raises CacheError."""
        part, replaced = secrets.token_hex(16), None
        with suppress(CacheError):  # there may be no file yet
            replaced = read_metadata(path).get(PART)
        self.tell_dropped()
        CacheLayers(cache).save(path, {**metadata, PART: part, SPLIT: self._split})
        try:
            message = {"do": "save", "cache": cache.number, PART: part, "replaces": replaced}
            self._followers.keep(message)
        except CacheError:
            path.unlink(missing_ok=True)
            raise

    def load(
        self, empty: SharedLayers, path: Path, metadata: Mapping[str, str], tokens: int, like: tuple[int, ...]
    ) -> SharedLayers:
        """A cache of which all ranks have their parts of what is saved at `path`. Raises CacheError."""
        if metadata.get(SPLIT) != self._split or PART not in metadata:
            raise CacheError(
                f"{path} was saved by a model that was split otherwise; the conversation has to be prefilled "
                "again"
            )
        layers = CacheLayers(empty).read_from(path, tokens, like, layer_shape(self._shard.model))
        cache = SharedLayers(layers, self, next(self._numbers))  # dropped on all ranks if one fails
        message = {"do": "load", "empty": empty.number, "cache": cache.number, PART: metadata[PART]}
        self._followers.keep({**message, "tokens": tokens, "like": list(like)})
        return cache

    def dropped(self, number: int) -> None:
        """Cache `number` is no longer used. From any thread."""
        self._dropped.append(number)


class SharedLayers(CacheLayers):
    """Rank 0's layers of a cache that every rank has its layers or heads of."""

    def __init__(self, layers: Iterable[Cache], leader: LeadingModel, number: int):
        super().__init__(layers)
        self.number = number
        self._leader = leader
        weakref.finalize(self, leader.dropped, number).atexit = False

    def _tell(self, what: str, *arguments: int) -> None:
        self._leader.tell({"do": what, "cache": self.number, "arguments": list(arguments)})

    def trim(self, tokens: int) -> None:
        self._tell("trim", tokens)
        super().trim(tokens)

    def roll_back(self, tokens: int) -> None:
        self._tell("roll_back", tokens)
        super().roll_back(tokens)

    def keep_for_rollback(self, tokens: int) -> int:
        self._tell("keep_for_rollback", tokens)
        return super().keep_for_rollback(tokens)

    def restart(self) -> bool:
        self._tell("restart")
        return super().restart()

    def shared_copy(self) -> CacheLayers:
        return self._leader.copied((layer.copy() for layer in self), self.number)

    def detach(self) -> None:
        self._tell("detach")
        super().detach()

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._leader.save(self, path, metadata)

    def loaded(
        self,
        path: Path,
        metadata: Mapping[str, str],
        tokens: int,
        like: tuple[int, ...],
        shape: LayerShape | None,  # noqa: ARG002  # of the whole model
    ) -> CacheLayers:
        return self._leader.load(self, path, metadata, tokens, like)
