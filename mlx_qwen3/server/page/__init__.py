"""The built-in page at /: a chat in the browser, in one file that asks nothing of any other machine."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Route

from mlx_qwen3.server.openai.errors import error_body
from mlx_qwen3.server.protocol import ApiProtocol
from mlx_qwen3.server.service import Service

FILE = Path(__file__).with_name("index.html")


@cache
def page() -> tuple[str, dict[str, str]]:
    """The page and its headers. The policy lets it run its own script and speak to its own server alone."""
    html = FILE.read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(html, "script"),
        "style-src": _hashes(html, "style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
    }


def _hashes(html: str, tag: str) -> str:
    """What names the page's own inline scripts or styles in its policy."""
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


async def _show(_: Request) -> HTMLResponse:
    html, headers = page()
    return HTMLResponse(html, headers=headers)


def _routes(_: Service) -> Sequence[BaseRoute]:
    return [Route("/", _show, methods=["GET"])]


PROTOCOL = ApiProtocol("page", ("/",), error_body, _routes, open_paths=("/",))
