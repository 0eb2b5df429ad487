"""Errors in the form of OpenAI's API."""

from __future__ import annotations

from typing import Any

from mlx_qwen3.server.errors import RequestError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(error: RequestError) -> dict[str, Any]:
    """The body of an error: clients show `message` and look at `code` and `type`."""
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.code or ("invalid_value" if error.status == 400 else None),
        }
    }
