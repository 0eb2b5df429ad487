"""transformers in a process of its own, where it computes with the BLAS it came with.

torch looks for its BLAS in what is loaded already, and beside ours it finds ours: it would make our mistakes,
and with an OpenBLAS that also has torch's batched products it crashes.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

import pytest

needs_transformers = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("transformers") is None, reason="needs the extra `parity`"
)


def theirs(function: str, *args: Any, **options: Any) -> Any:
    """What `function` of transformers_reference.py returns there."""
    return _process().submit(_call, function, args, options).result()


@cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))  # a fork would inherit our BLAS


def _call(function: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return getattr(import_module("parity.transformers_reference"), function)(*args, **options)
