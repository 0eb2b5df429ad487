"""Reads JSON objects from files, and writes files atomically.

If the process is killed while it writes, the path holds the old content or all of the new.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mlx_qwen3.errors import Qwen3Error


def read_json_object(path: Path, error: type[Qwen3Error], advice: str = "") -> dict[str, Any]:
    """The JSON object in the file at `path`.

    Raises `error` if there is none. Its message names the file and ends with `advice`.
    """
    advice = advice and f"; {advice}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} is missing{advice}") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not valid JSON: {problem}{advice}") from None
    if not isinstance(content, dict):
        raise error(f"{path} does not hold a JSON object{advice}")
    return content


def write_atomically(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` with `content`.

    Raises OSError; then the old file is unchanged and no temporary file is left.
    """
    with replacing(path, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A temporary file that replaces `path` at the end of the block, once its content is on the disk.

    If the block raises, the old file is unchanged and the temporary file is removed. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
