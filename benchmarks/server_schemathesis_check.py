"""A check for schemathesis: are answers what the packages of OpenAI and Anthropic take them for?"""

from __future__ import annotations

from typing import Any

import schemathesis

from benchmarks.server_answers import fault


def types_of_clients(context: Any, response: Any, case: Any) -> None:  # noqa: ARG001
    """Raises AssertionError for an answer that a client would not read."""
    [kind] = response.headers.get("content-type", [""])
    if found := fault(case.operation.path, response.status_code, kind, response.content):
        raise AssertionError(found)


schemathesis.check(types_of_clients)
