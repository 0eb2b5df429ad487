"""ServerConfig: how the server is run. Sizes are bytes, times seconds."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlx_qwen3.errors import ConfigError

DEFAULT_PORT = 8080
LEAST_SAVED_TOKENS = 512


@dataclass(frozen=True)
class Limits:
    """What requests may take.

    Attributes:
        body: Bytes of a request's body.
        messages: Messages of a conversation.
        tools: Tools offered.
        schema: Characters of a schema.
        choices: Answers to one request.
        waiting: Requests that wait for their turn, of all clients and of one.
        request_seconds: How long one request may run.
        body_seconds: How long a client may take to send its body.
        send_seconds: How long a client may leave what was sent to it unread.
        keep_alive: After how long without an event a stream says that it is alive.
    """

    body: int = 32 * 2**20
    messages: int = 20_000
    tools: int = 512
    schema: int = 256 * 2**10
    choices: int = 128
    waiting: int = 1024
    waiting_of_one: int = 256
    request_seconds: float = 3600.0
    body_seconds: float = 60.0
    send_seconds: float = 120.0
    keep_alive: float = 10.0


@dataclass(frozen=True)
class ServerConfig:
    """Everything the server is started with.

    Attributes:
        models: Names, folders or hub ids of the models; the first is the default.
        aliases: Further names of models.
        adapters: Name -> folder of a LoRA or DoRA adapter: the default model with it, as a model of its own.
        host, port: Where to listen.
        api_keys: Key -> a short name for it; without any, no key is asked for.
        allowed_hosts: Names under which the server may be addressed, besides its own address and localhost.
        allowed_origins: Web pages that may use the server (CORS); none by default.
        engine: Options of every engine, such as `context`, `kv_bits` or `dtype`.
        thinking: Whether the model thinks if a request does not say.
        prepares: Whether to prefill, in idle moments, what a conversation's next request begins with.
        pinned: Models that are never unloaded.
        unload_after: After how long without a request a model is unloaded; None is never.
        most_models: Models loaded at once.
        cache_folder: For KV caches on disk; None keeps them in memory alone.
        cache_limit: Bytes on disk.
        least_saved_tokens: Shorter prefixes are not saved.
        stop_seconds: How long running requests may take to end when the server stops.
        log_prompts: Whether texts of requests are logged.
        limits: What requests may take.
    """

    models: tuple[str, ...] = ("demo",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_keys: Mapping[str, str] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    engine: Mapping[str, object] = field(default_factory=dict)
    thinking: bool = True
    prepares: bool = True
    pinned: tuple[str, ...] = ()
    unload_after: float | None = None
    most_models: int = 4
    cache_folder: Path | None = None
    cache_limit: int = 20 * 10**9
    least_saved_tokens: int = LEAST_SAVED_TOKENS
    stop_seconds: float = 20.0
    log_prompts: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("a server needs at least one model")
        if not self.is_local and not self.api_keys:
            raise ConfigError(
                f"{self.host} can be reached from other machines: give a file of API keys, one a line"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """Where clients on this machine find it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "localhost", "") else self.host
        host = "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}"
