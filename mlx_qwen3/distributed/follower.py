"""The other ranks' side: does what rank 0 tells, message by message."""

from __future__ import annotations

from collections import deque
from typing import Any

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.layers import PART, CacheLayers
from mlx_qwen3.cache.prompt_cache import layer_shape, make_layer_cache
from mlx_qwen3.distributed.channel import Connection, Message
from mlx_qwen3.distributed.kept_parts import KeptParts
from mlx_qwen3.distributed.leader import Shard
from mlx_qwen3.errors import CacheError, DistributedError, one_line
from mlx_qwen3.model.config import RopeScaling

# Passes begun before the oldest is waited for: rank 0 is at most one ahead.
PASSES_AHEAD = 2
# The next pass is begun before this one is waited for, if it is told so soon.
IDLE_SECONDS = 0.02
# What a message may do to a cache, with numbers as arguments.
CHANGES = ("trim", "roll_back", "keep_for_rollback", "restart", "detach")


class Follower:
    """Applies rank 0's messages to this rank's part of the model."""

    def __init__(self, shard: Shard, leader: Connection, parts: KeptParts):
        self._shard, self._leader, self._parts = shard, leader, parts
        self._caches: dict[int, CacheLayers] = {}
        self._under_way: deque[tuple[int, list[Any]]] = deque()
        self._step: int | None = None

    def run(self) -> None:
        """Until rank 0 ends. Raises DistributedError if it ends with an error, or messages are missing."""
        while True:
            message = self._next()
            if message["do"] == "end":
                if message["reason"]:
                    raise DistributedError(str(message["reason"]))
                self._finish_all()
                return
            self._count(int(message["step"]))
            self._obey(message)

    def _next(self) -> Message:
        """The next message. While none comes, what is under way is finished and reported."""
        while self._under_way:
            if (message := self._leader.ask_soon(0 if self._is_full else IDLE_SECONDS)) is not None:
                if self._is_full:
                    self._finish_oldest()
                return message
            self._finish_oldest()
        return self._leader.ask()

    @property
    def _is_full(self) -> bool:
        return len(self._under_way) >= PASSES_AHEAD

    def _finish_all(self) -> None:
        while self._under_way:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        step, computed = self._under_way.popleft()
        self._shard.check(computed, step)
        self._leader.send({"done": step})

    def _count(self, step: int) -> None:
        if self._step is not None and step != self._step + 1:
            raise DistributedError(f"message {step} of rank 0 came after {self._step}")
        self._step = step

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "pass":
                self._pass(message)
            case "make":
                config = CacheConfig(**message["options"])
                layers = self._shard.model.layers
                self._caches[message["cache"]] = CacheLayers(
                    make_layer_cache(config, layer.self_attn.rope) for layer in layers
                )
            case "copy":
                self._caches[message["to"]] = self._caches[message["cache"]].shared_copy()
            case "drop":
                for number in message["caches"]:
                    self._caches.pop(number, None)  # one that could not be read was never there
            case "save" | "load":
                self._finish_all()
                self._leader.send({"kept": message[PART], "problem": self._keep(message)})
            case change if change in CHANGES:
                getattr(self._caches[message["cache"]], change)(*map(int, message["arguments"]))
            case other:
                raise DistributedError(f"rank 0 asks for {other!r}, which this version does not know")

    def _keep(self, message: Message) -> str | None:
        """Write or read this rank's part of a cache; the problem if that fails."""
        name, number = str(message[PART]), message["cache"]
        try:
            if message["do"] == "save":
                self._parts.save(name, self._caches[number], message["replaces"])
            else:
                empty, shape = self._caches[message["empty"]], layer_shape(self._shard.model)
                self._caches[number] = self._parts.load(
                    name, empty, int(message["tokens"]), message["like"], shape
                )
        except CacheError as error:
            return one_line(error, 200)
        return None

    def _pass(self, message: Message) -> None:
        self._shard.model.use_adapter(message["adapter"])
        scaling = message["scaling"]
        self._shard.model.scale_positions(None if scaling is None else RopeScaling(**scaling))
        caches = [self._caches[number] for number in message["caches"]]
        step = message["step"]
        _, computed = self._shard.run(
            None, message["lengths"], caches, message["rows"], step, bool(message["head"])
        )
        self._under_way.append((step, computed))
