"""Runs transformers in a process of its own, where torch computes with its own BLAS.

In our process torch would find the BLAS that we loaded. It would share our errors, and an OpenBLAS that has
batched products as well makes it crash.
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


def in_transformers(function: str, *args: Any, **options: Any) -> Any:
    """The result of `function` of transformers_reference.py, called in that process."""
    return _process().submit(_call, function, args, options).result()


@cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))  # a fork would inherit our BLAS


def _call(function: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return getattr(import_module("parity.transformers_reference"), function)(*args, **options)
