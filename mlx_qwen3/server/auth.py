"""Gate: who may use the server. Checks the Host and Origin of each request, and its API key.

A web page can make a browser send requests to this machine. It cannot hide its Origin, and if its name was
made to point here (DNS rebinding) the Host is that name. So only names of this machine are taken as Host,
and no page but the server's own as Origin, unless they were named.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.files import read_bytes
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.errors import RequestError

MAX_KEY_FILE = 2**20
LEAST_KEY = 8  # characters
# Names by which programs in containers reach the machine that runs them. No one can register them.
CONTAINER_NAMES = ("host.docker.internal", "host.containers.internal", "host.lima.internal")
ALLOWED_METHODS, ALLOWED_HEADERS = "GET, POST, DELETE, OPTIONS", (
    "authorization, content-type, x-api-key, anthropic-version, anthropic-beta, openai-organization, "
    "openai-project, x-request-id"
)  # fmt: skip


def read_api_keys(path: Path) -> dict[str, str]:
    """The keys in a file, each with its name: one a line, `name: key` or the key alone; # begins a comment.

    Raises ConfigError.
    """
    try:
        data = read_bytes(path, MAX_KEY_FILE)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text: write one key a line") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        name, separator, key = text.rpartition(":")
        name, key = name.strip() if separator else f"key-{len(keys) + 1}", key.strip()
        if len(key) < LEAST_KEY or not key.isascii() or " " in key:
            raise ConfigError(
                f"{path}, line {number}: a key has {LEAST_KEY} or more ASCII characters and no spaces"
            )
        keys[key] = name or f"key-{len(keys) + 1}"
    if not keys:
        raise ConfigError(f"{path} holds no key: write one a line")
    return keys


class Gate:
    """Decides about requests by their headers."""

    def __init__(self, config: ServerConfig):
        self._keys = {_digest(key): name for key, name in config.api_keys.items()}
        self._hosts = {name.lower() for name in (*config.allowed_hosts, *CONTAINER_NAMES, "localhost")}
        if config.host:
            self._hosts.add(config.host.lower())
        if not config.is_local:
            own = socket.gethostname().lower()
            self._hosts |= {own, f"{own.split('.')[0]}.local"}
        self._origins = {origin.rstrip("/").lower() for origin in config.allowed_origins}

    @property
    def asks_for_keys(self) -> bool:
        return bool(self._keys)

    def check_host(self, headers: Headers) -> None:
        """Raises RequestError (403) for a Host that is no name of this machine."""
        host = headers.get("host", "")
        name = _host_name(host)
        if name is None or not (_is_address(name) or name in self._hosts or name.endswith(".localhost")):
            raise RequestError(
                403,
                f"the server does not answer to the host {host!r:.80}; name it in allowed_hosts",
                code="host",
            )

    def check_origin(self, headers: Headers) -> str | None:
        """The Origin that may read the answer, if a page of another origin asks and was allowed.

        Raises RequestError (403) for other pages.
        """
        origin = headers.get("origin")
        if origin is None:
            if (
                headers.get("sec-fetch-site") in ("cross-site", "same-site")
                and headers.get("sec-fetch-mode") != "navigate"
            ):
                raise _refused("another site")
            return None
        if origin.lower() in self._origins or "*" in self._origins:
            return origin
        parts = urlsplit(origin)
        is_own = parts.scheme in ("http", "https") and parts.netloc.lower() == headers.get("host", "").lower()
        if not is_own:
            raise _refused(origin)
        return None

    def key_name(self, headers: Headers) -> str | None:
        """The name of the API key in the headers; None without keys. Raises RequestError (401)."""
        if not self._keys:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest, found = _digest(given), None
        for known, name in self._keys.items():  # all of them: the time says nothing
            if hmac.compare_digest(known, digest):
                found = name
        if found is None:
            problem = "this API key is not known" if given else "an API key is needed"
            raise RequestError(
                401, f"{problem}: send it as Authorization: Bearer KEY", code="invalid_api_key"
            )
        return found


def cors_headers(origin: str) -> Mapping[str, str]:
    """What lets a page of an allowed origin read an answer."""
    return {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": ALLOWED_METHODS,
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-expose-headers": "x-request-id, retry-after",
        "access-control-max-age": "600",
        "vary": "Origin",
    }


def _refused(origin: str) -> RequestError:
    return RequestError(
        403, f"pages of {origin!r:.80} may not use this server; name it in allowed_origins", code="origin"
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without the port; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if not host or parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.hostname.rstrip(".").lower() if parts.hostname else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
