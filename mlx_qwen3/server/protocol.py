"""ApiProtocol: an API of the server, its routes and the form of its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute

from mlx_qwen3.server.errors import RequestError

if TYPE_CHECKING:
    from mlx_qwen3.server.service import Service


@dataclass(frozen=True)
class ApiProtocol:
    """One API.

    Attributes:
        name: For metrics and logs.
        paths: Beginnings of the paths whose errors take this form.
        error_body: The JSON body of an error.
        routes: Makes its routes.
        open_paths: Paths that need no API key.
    """

    name: str
    paths: tuple[str, ...]
    error_body: Callable[[RequestError], Mapping[str, Any]]
    routes: Callable[[Service], Sequence[BaseRoute]]
    open_paths: tuple[str, ...] = ()
