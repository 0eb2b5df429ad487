"""`mlx-qwen3 serve`: the local server, its start-up screen and its live status."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_qwen3.cli.distributed.options import DISTRIBUTED, HOSTS, engine_options
from mlx_qwen3.cli.flags import (
    AUTO,
    DRAFT_MODEL,
    DTYPE,
    KV_BITS,
    UNLOAD_AFTER,
    WIRED,
    device_options,
    draft_setting,
)
from mlx_qwen3.cli.output import write_line, write_note
from mlx_qwen3.errors import ConfigError

if TYPE_CHECKING:
    from mlx_qwen3.server.config import ServerConfig
    from mlx_qwen3.server.service import Service

GB = 10**9
STATUS_SECONDS = 1.0


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="A folder, hub id, short name or demo; several times for several."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen. Others than this machine need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8080,
    api_key_file: Annotated[
        Path | None, typer.Option(help="API keys, one a line: KEY, or NAME: KEY.")
    ] = None,
    alias: Annotated[list[str] | None, typer.Option(help="NAME=MODEL: another name of a model.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER: the first model with this adapter, under that name."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name of this machine for clients.")
    ] = None,
    allowed_origin: Annotated[
        list[str] | None, typer.Option(help="A web page that may use the server, such as https://host.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Context in tokens.")] = None,
    max_kv_size: Annotated[
        int | None, typer.Option(min=64, help="Sliding windows of so many tokens.")
    ] = None,
    kv_bits: Annotated[int | None, KV_BITS] = None,
    draft_model: Annotated[str, DRAFT_MODEL] = AUTO,
    dtype: Annotated[str, DTYPE] = AUTO,
    wired: Annotated[bool | None, WIRED] = None,
    distributed: Annotated[str | None, DISTRIBUTED] = None,
    hosts: Annotated[Path | None, HOSTS] = None,
    think: Annotated[
        bool, typer.Option("--think/--no-think", help="For requests that do not say whether to think.")
    ] = True,
    prepare: Annotated[
        bool, typer.Option("--prepare/--no-prepare", help="Read ahead, in idle moments, what comes next.")
    ] = True,
    pin: Annotated[list[str] | None, typer.Option(help="A model to load now and never unload.")] = None,
    unload_after: Annotated[float | None, UNLOAD_AFTER] = None,
    max_models: Annotated[int, typer.Option(min=1, help="Models loaded at once.")] = 4,
    cache_folder: Annotated[Path | None, typer.Option(help="Where prompts' KV caches are kept.")] = None,
    cache_size: Annotated[float, typer.Option(min=0, help="Gigabytes of them on disk; 0 keeps none.")] = 20.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait for their turn.")] = 1024,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one request may take.")] = 3600,
    log: Annotated[bool, typer.Option("--log", help="A line on stderr for each request.")] = False,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Log the texts of requests, too.")
    ] = False,
    print_config: Annotated[
        str | None, typer.Option(help="Print what to give a client (such as claude-code), and leave.")
    ] = None,
) -> None:
    """Serve models over HTTP: OpenAI's API, Anthropic's, Responses, and a page for the browser."""
    from mlx_qwen3.server.auth import read_api_keys
    from mlx_qwen3.server.config import Limits, ServerConfig

    if distributed is not None and (len(model or ()) > 1 or unload_after is not None):
        raise typer.BadParameter("takes one model, which stays loaded", param_hint="--distributed")
    ranks = engine_options(distributed, hosts)
    config = ServerConfig(
        models=tuple(model or ["demo"]),
        aliases=dict(_pair(text, "--alias") for text in alias or []),
        adapters=dict(_pair(text, "--adapter") for text in adapter or []),
        host=host,
        port=port,
        api_keys={} if api_key_file is None else read_api_keys(api_key_file),
        allowed_hosts=tuple(allowed_host or ()),
        allowed_origins=tuple(allowed_origin or ()),
        engine={
            "context": context,
            "max_kv_size": max_kv_size,
            "kv_bits": kv_bits,
            "draft_model": draft_setting(draft_model),
            **device_options(dtype, wired),
            **ranks,
        },
        thinking=think,
        prepares=prepare,
        pinned=tuple(pin or (model if ranks and model else ())),
        unload_after=None if unload_after is None else unload_after * 60,
        most_models=1 if ranks else max_models,
        cache_folder=_cache_folder(cache_folder) if cache_size and not ranks else None,
        cache_limit=int(cache_size * GB),
        log_prompts=log_prompts,
        limits=Limits(waiting=max_waiting, waiting_of_one=max(1, max_waiting // 2), request_seconds=timeout),
    )
    if print_config is not None:
        write_line(_client_config(print_config, config))
        return
    _run(config, log or log_prompts)


def _run(config: ServerConfig, logs: bool) -> None:
    from mlx_qwen3.cli.open_engine import open_engine
    from mlx_qwen3.server.run import serve as run_server

    screen = _Screen()
    with _logged(logs), screen:
        run_server(config, open_engine, screen.show)
    write_note("stopped")


class _Screen:
    """What is shown while the server runs: once what to paste where, then one line that is kept current."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, service: Service, config: ServerConfig) -> None:
        """Called when clients can connect."""
        for line in start_lines(service, config):
            write_line(line)
        self._thread = threading.Thread(target=self._keep_current, args=(service,), daemon=True)
        self._thread.start()

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _keep_current(self, service: Service) -> None:
        from rich.live import Live
        from rich.text import Text

        from mlx_qwen3.cli.console import SafeConsole

        console = SafeConsole(stderr=True)
        if not console.is_terminal:
            return
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not self._over.wait(STATUS_SECONDS):
                with suppress(RuntimeError):  # a dict changed while it was read
                    live.update(Text(status_line(service), style="dim"), refresh=True)


def start_lines(service: Service, config: ServerConfig) -> list[str]:
    """What to paste into which client."""
    names = ", ".join(model.name for model in service.models)
    key, token = ("one of your API keys", "KEY") if config.api_keys else ("anything", "local")
    claude = f"ANTHROPIC_BASE_URL={config.url} ANTHROPIC_AUTH_TOKEN={token} claude"
    return [
        f"Serving {names} at {config.url}",
        "",
        f"  in the browser         {config.url}/",
        f"  OpenAI clients         base URL {config.url}/v1, key: {key}",
        f"  Claude Code            {claude}",
        "  any other              mlx-qwen3 serve --print-config codex|qwen-code|continue|zed|llm|...",
        f"  how it is              {config.url}/status, /metrics, /health",
        "",
        "Ctrl-C stops: running answers may end first.",
    ]


def status_line(service: Service) -> str:
    """Requests, tokens a second and memory, in one line."""
    from mlx_qwen3.server.monitoring.status import status_of

    status = status_of(service)
    running = sum(model.get("running", 0) for model in status["models"])
    waiting = sum(model.get("waiting", 0) for model in status["models"])
    speed = sum(model.get("tokens_per_second", 0.0) for model in status["models"])
    answered = sum(service.metrics.requests.values())
    memory = status["memory"]["active_bytes"] / GB
    return (
        f"{time.strftime('%H:%M:%S')}  {running} running, {waiting} waiting, {answered:,} answered · "
        f"{speed:.0f} tokens/s, {status['generated_tokens']:,} in all · {memory:.1f} GB"
    )


@contextmanager
def _logged(is_on: bool) -> Iterator[None]:
    """The server's log on stderr; without it only what went wrong."""
    logger, handler = logging.getLogger("mlx_qwen3.server"), _NoteHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if is_on else logging.WARNING)
    others = logging.getLogger("uvicorn.error")
    others.addHandler(handler)
    others.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each in (logger, others):
            each.removeHandler(handler)


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        write_note(f"{time.strftime('%H:%M:%S')} {record.getMessage()}")


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise typer.BadParameter(f"takes NAME=..., not {text!r}", param_hint=flag)
    return name, value


def _cache_folder(folder: Path | None) -> Path:
    if folder is not None:
        return folder.expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("mlx-qwen3") / "prefixes"


def _client_config(client: str, config: ServerConfig) -> str:
    from mlx_qwen3.cli.serving.clients import CLIENTS, client_config
    from mlx_qwen3.server.models import served_name

    if client not in CLIENTS:
        raise ConfigError(f"there is no configuration for {client}; there are {', '.join(CLIENTS)}")
    key: str | None = next(iter(config.api_keys), None)
    context = config.engine.get("context")
    limit = context if isinstance(context, int) else None
    return client_config(client, config.url, served_name(config.models[0]), key, limit)


__all__: list[Any] = ["serve", "start_lines", "status_line"]
