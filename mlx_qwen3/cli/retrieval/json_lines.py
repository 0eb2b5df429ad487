"""Reads the lines that `embed` and `rerank` work on: texts or JSON objects, from a file or stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mlx_qwen3.errors import MessageError

GROUP = 256  # lines that are worked on together: enough to sort by length, few enough for results to come


def read_objects(file: Path | None, text_field: str) -> Iterator[dict[str, Any]]:
    """The lines of `file`, or of standard input for None or `-`.

    Each is a JSON object if the first line is one; otherwise it is a text, which becomes `text_field`. An
    object without `id` gets the number of its line. Empty lines are skipped. Raises MessageError.
    """
    name = "standard input" if _is_input(file) else str(file)
    has_objects: bool | None = None
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        value = _json(line)
        if has_objects is None:
            has_objects = isinstance(value, dict)
        if not has_objects:
            yield {"id": number, text_field: line}
        elif not isinstance(value, dict):
            raise MessageError(f"{name}, line {number} is not a JSON object, although the first line is")
        else:
            yield {"id": number, **value}


def groups(objects: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The objects, GROUP at a time."""
    while group := list(islice(objects, GROUP)):
        yield group


def text_of(row: dict[str, Any], field: str) -> str:
    """The text in a field of an object. Raises MessageError that names the object."""
    value = row.get(field)
    if not isinstance(value, str):
        problem = "is missing" if field not in row else "is not text"
        raise MessageError(f"{field} {problem} in the line with id {row['id']!r:.40}")
    return value


def refuse_unknown(row: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise MessageError if the object has another field: it would be ignored."""
    for name in row:
        if name not in known:
            raise MessageError(
                f"there is no field {name!r:.40} (id {row['id']!r:.40}); there are {', '.join(known)}"
            )


def _is_input(file: Path | None) -> bool:
    return file is None or str(file) == "-"


def _lines(file: Path | None) -> Iterator[str]:
    """Lines without their line feed. JSON strings may contain the other characters that end lines."""
    try:
        if _is_input(file):
            yield from map(_text, sys.stdin.buffer)
            return
        assert file is not None
        with file.open("rb") as stream:
            yield from map(_text, stream)
    except OSError as error:
        raise MessageError(f"{file} cannot be read: {error.strerror}") from error


def _text(line: bytes) -> str:
    return line.decode("utf-8-sig", "replace").removesuffix("\n").removesuffix("\r")


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
