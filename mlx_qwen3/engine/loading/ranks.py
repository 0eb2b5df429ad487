"""Opens a model over several machines: the ranks meet, compare what they have, and load their parts.

Rank 0 runs an engine. `follow` is what the others run in its place.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import mlx.core as mx

from mlx_qwen3.adapters import adapter_share
from mlx_qwen3.backend.device import available_memory
from mlx_qwen3.backend.versions import installed_version
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.checkpoint import OnDownload
from mlx_qwen3.checkpoint.fingerprint import file_digests
from mlx_qwen3.checkpoint.load import LoadedModel, load_config
from mlx_qwen3.checkpoint.locate import locate
from mlx_qwen3.checkpoint.shares.fetch_share import fetch_config, fetch_share
from mlx_qwen3.checkpoint.shares.load_share import Shard, load_share, plan_shares, share_config, share_tensors
from mlx_qwen3.distributed.channel import Connection, Listener, Message, connect
from mlx_qwen3.distributed.follower import Follower
from mlx_qwen3.distributed.group import Group
from mlx_qwen3.distributed.kept_parts import KeptParts
from mlx_qwen3.distributed.leader import Followers, LeadingModel
from mlx_qwen3.distributed.plan import Share, check_mode, describe
from mlx_qwen3.distributed.start.addresses import rank_0_addresses
from mlx_qwen3.distributed.start.meeting import Meeting
from mlx_qwen3.distributed.watch import Watch
from mlx_qwen3.engine.loading.adapters import Adapters
from mlx_qwen3.errors import DistributedError, Qwen3Error, one_line
from mlx_qwen3.generation.forward import Compute
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import AUTO_DTYPE

TOKEN_WORDS = 4
WIDTHS = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "moe_intermediate_size")
# For the reason of a failed collective to be found by the watch.
VERDICT_SECONDS = 5.0


@dataclass(frozen=True)
class Request:
    """What rank 0 wants to be loaded."""

    model: str
    mode: str
    context: int | None
    cache_config: CacheConfig
    dtype: str | None


class Ranks:
    """The ranks of an engine, as rank 0 has them.

    Attributes:
        loaded: The model; its passes run on all ranks. Its plan is what all ranks have memory for.
        config: By which this rank's KV cache is measured.
        shares: The part of each rank.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: ModelConfig,
        shares: list[Share],
        watch: Watch,
        followers: Followers,
        group: Group,
    ):
        self.loaded, self.config, self.shares = loaded, config, shares
        self.group = group
        self._watch, self._followers = watch, followers

    @property
    def compute(self) -> Compute:
        """What computes the logits of a pass."""
        model: Any = self.loaded.model
        compute: Compute = model.compute
        return compute

    @property
    def health(self) -> dict[int, int]:
        """The number of the latest message that each other rank has finished. From any thread."""
        return self._followers.progress()

    def explain(self, error: Exception) -> Exception:
        """`error`, or why a rank was lost if that is behind it."""
        if isinstance(error, Qwen3Error) and not str(error).startswith("generation failed"):
            return error
        line = self._watch.verdict(VERDICT_SECONDS)
        return DistributedError(line) if line else error

    def end(self, reason: Exception | None = None) -> None:
        """Have the other ranks end, once they have finished what is under way. On the engine's thread."""
        line = self._watch.line or (f"rank 0: {one_line(reason)}" if reason is not None else None)
        if line is None:
            model: Any = self.loaded.model
            model.settle()  # while the other ranks are still watched
        self._watch.stop()
        self._followers.end(self._watch.line or line)


def lead(
    request: Request, adapters: Adapters, on_lost: Callable[[str], None], on_download: OnDownload | None
) -> Ranks:
    """Rank 0: meet the others, and load a part of the model on every rank.

    Args:
        request: What to load.
        adapters: Those to read with it. The other ranks read them from the same folders.
        on_lost: Called on a thread of its own when a rank is lost, with a line that names it.
        on_download: Told of bytes downloaded here.

    Raises:
        DistributedError: The ranks cannot meet, differ, or cannot load their parts.
    """
    with Meeting():
        group = Group.join()
        check_mode(request.mode, group.size)
        listener, _, _ = _announce(group)
        assert listener is not None  # on rank 0
        connections = listener.accept(group.size - 1)
    followers = Followers(connections)
    lost: list[str] = []

    def lose(line: str) -> None:
        lost.append(line)
        threading.Thread(target=followers.end, args=(line,), daemon=True).start()
        on_lost(line)

    watch = Watch(connections, lose, followers.waiting_since)
    followers.on_failure = watch.lose
    try:
        return _load_all(request, adapters, group, followers, watch, on_download)
    except Qwen3Error as error:
        watch.stop()
        line = (lost or [str(error)])[0]
        followers.end(line)
        raise DistributedError(line) if lost else error from None


def _load_all(
    request: Request,
    adapters: Adapters,
    group: Group,
    followers: Followers,
    watch: Watch,
    on_download: OnDownload | None,
) -> Ranks:
    connections = followers.connections
    for connection in connections:
        connection.send({"do": "load", **_told(request, adapters), "mine": _about_me()})
    folder = fetch_config(request.model)
    answers = [connection.ask() for connection in connections]
    for connection, answer in zip(connections, answers, strict=True):
        _compare(connection, "software", answer["software"], _about_me()["software"])
        _compare(connection, "config.json", answer["config"], _config_digest(folder))
    memories = [available_memory(), *(int(answer["memory"]) for answer in answers)]
    config = load_config(folder)
    shares = plan_shares(config, request.mode, memories, request.cache_config)
    for connection, share in zip(connections, shares[1:], strict=True):
        connection.send({"do": "share", "share": share.to_values()})
    shard, loaded, mine = _load_part(request, adapters, shares[0], group, on_download)
    answers = [mine, *(connection.ask() for connection in connections)]
    for connection, answer in zip(connections, answers[1:], strict=True):
        _compare(connection, "the dtype it computes in", answer["dtype"], mine["dtype"])
        for name, digest in mine["adapters"].items():
            _compare(connection, f"the adapter {name}", answer["adapters"][name], digest)
        for name in sorted(set(answer["files"]) & set(mine["files"])):
            _compare(connection, name, answer["files"][name], mine["files"][name])
    part = share_config(config, shares[0])
    whole = replace(loaded.model.args, **{name: getattr(config, name) for name in WIDTHS})
    model: Any = LeadingModel(shard, followers, whole, describe(shares))
    model.use_adapter(adapters.default)
    plan = replace(
        loaded.plan,
        context=min(int(answer["context"]) for answer in answers),
        longest_context=min(int(answer["longest"]) for answer in answers),
    )
    return Ranks(LoadedModel(model, plan, loaded.folder), part, shares, watch, followers, group)


def follow() -> NoReturn:
    """Every rank but the first: load a part, follow rank 0 until it ends, then exit.

    Raises SystemExit, whose message is what ended it where that was no good end.
    """
    with Meeting():
        group = Group.join()
        _, port, token = _announce(group)
        leader = connect(rank_0_addresses(), port, token, group.rank)
    watch = Watch([leader], end_process)
    try:
        _follow(group, leader)
    except Exception as error:  # noqa: BLE001  # rank 0 is told, and the process ends
        line = one_line(error)
        if not isinstance(error, Qwen3Error):  # a collective fails where its partner is gone
            line = watch.verdict(VERDICT_SECONDS) or f"{type(error).__name__}: {line}"
        watch.stop()
        leader.send({"failed": line})
        end_process(line)
    watch.stop()
    raise SystemExit(0)


def _follow(group: Group, leader: Connection) -> None:
    message = _ask(leader)
    request = Request(
        str(message["model"]),
        str(message["mode"]),
        message["context"],
        CacheConfig(**message["cache"]),
        message["dtype"],
    )
    folder = fetch_config(request.model)
    leader.send({**_about_me(), "config": _config_digest(folder)})
    share = Share.from_values(_ask(leader)["share"])
    adapters = Adapters(None, message["adapters"])
    shard, _, mine = _load_part(request, adapters, share, group, None)
    leader.send(mine)
    Follower(shard, leader, KeptParts(group.rank)).run()


def _ask(leader: Connection) -> Message:
    """The next message of rank 0 while it loads. Raises DistributedError if it gave up."""
    message = leader.ask()
    if message["do"] == "end":
        raise DistributedError(str(message["reason"] or "rank 0 ended while the model was loaded"))
    return message


def _load_part(
    request: Request, adapters: Adapters, share: Share, group: Group, on_download: OnDownload | None
) -> tuple[Shard, LoadedModel, Message]:
    """Load this rank's part, and say what the others need to know of it."""
    folder = fetch_share(request.model, share, on_download)
    shard, loaded = load_share(
        folder,
        share,
        group,
        request.context,
        request.cache_config,
        request.model,
        request.dtype or AUTO_DTYPE,
    )
    config = load_config(folder)
    adapters.put_on(shard.model, request.model, lambda adapter: adapter_share(adapter, share, config))
    norm = loaded.model.layers[0].input_layernorm.weight
    told = {
        "context": loaded.plan.context,
        "longest": loaded.plan.longest_context,
        "dtype": str(norm.dtype),
        "files": file_digests(tensor.file for tensor in share_tensors(folder, share).values()),
        "adapters": adapters.digests,
    }
    return shard, loaded, told


def _announce(group: Group) -> tuple[Listener | None, int, bytes]:
    """Rank 0 listens, and tells all ranks through a collective at which port, and what they must know."""
    listener: Listener | None = None
    words = [0] * (TOKEN_WORDS + 1)
    if group.rank == 0:
        token = secrets.token_bytes(4 * TOKEN_WORDS)
        listener = Listener(token)
        words = [listener.port, *memoryview(token).cast("I").tolist()]
    told: list[int] = group.all_sum(mx.array(words, mx.uint32)).tolist()  # type: ignore[assignment]
    known = b"".join(word.to_bytes(4, sys.byteorder) for word in told[1:])
    return listener, told[0], known


def _about_me() -> Message:
    from mlx_qwen3 import __version__

    software = f"mlx-qwen3 {__version__}, mlx {installed_version('mlx')}"
    return {"software": software, "memory": available_memory(), "host": socket.gethostname()}


def _config_digest(folder: Path) -> str:
    return sha256((folder / "config.json").read_bytes()).hexdigest()[:16]


def _compare(connection: Connection, what: str, theirs: object, mine: object) -> None:
    if theirs != mine:
        raise DistributedError(
            f"{connection} differs in {what}: {one_line(theirs, 80)} there, {one_line(mine, 80)} on rank 0; "
            "give all machines the same"
        )


def _told(request: Request, adapters: Adapters) -> Message:
    is_folder = isinstance(locate(request.model), Path) and Path(request.model).is_dir()
    return {
        "model": str(Path(request.model).absolute()) if is_folder else request.model,
        "mode": request.mode,
        "context": request.context,
        "cache": asdict(request.cache_config),
        "dtype": request.dtype,
        "adapters": {
            name: str(Path(folder).expanduser().absolute()) for name, folder in adapters.folders.items()
        },
    }


_when_lost: list[Callable[[str], object]] = []


def when_lost(callback: Callable[[str], object]) -> None:
    """Have `callback` called, on a thread of its own, with the line of a machine that is lost.

    An engine's requests have failed with that line by then, and no engine over these machines runs again.
    """
    _when_lost.append(callback)


def tell_of_loss(line: str) -> None:
    """A machine is lost, and an engine has ended what ran."""
    for callback in _when_lost:
        callback(line)


def leave_at_exit() -> None:
    """Have the process end without waiting for MLX, whose threads wait for a rank that is lost."""

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(1)

    atexit.register(leave)


def end_process(line: str) -> NoReturn:
    """End this process at once, with `line` on stderr: its engine may wait for a collective for ever."""
    os.write(2, f"error: {line}\n".encode())
    os._exit(1)
