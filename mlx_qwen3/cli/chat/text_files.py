"""Text files that a user names in the chat, also in the ways in which terminals insert a dragged file."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlx_qwen3.errors import MessageError
from mlx_qwen3.files import read_bytes

MAX_FILE_BYTES = 2_000_000  # more fits no context


def text_or_file(argument: str) -> str:
    """The text that an option or command was given; of a file where it is @PATH."""
    if not argument.startswith("@"):
        return argument
    (path,) = paths_in(argument[1:])[:1] or [Path(argument[1:])]
    return read_text(path)


def paths_in(typed: str) -> list[Path]:
    """The files that `typed` names: a path as it is, or else paths as a shell would read them.

    Terminals insert a dragged file with backslashes before blanks, in quotes, or as a file:// address.
    """
    typed = typed.strip()
    path = _path(typed)
    if _exists(path):
        return [path]
    try:
        words = [_path(word) for word in shlex.split(typed)]
    except ValueError:  # an apostrophe
        return [path]
    return words if words and all(map(_exists, words)) else [path]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _path(text: str) -> Path:
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    return Path(text).expanduser()


def read_text(path: Path) -> str:
    """The text in the file at `path`. Raises MessageError."""
    try:
        data = read_bytes(path, MAX_FILE_BYTES)
        if len(data) > MAX_FILE_BYTES:
            size, limit = path.stat().st_size, f"{MAX_FILE_BYTES / 1e6:.0f} MB"
            # Files that the system makes up have no size.
            has = f"{size / 1e6:,.1f} MB" if size > MAX_FILE_BYTES else f"more than {limit}"
            raise MessageError(f"{path} has {has}; text of up to {limit} is read")
    except IsADirectoryError:
        raise MessageError(f"{path} cannot be read: it is a folder") from None
    except OSError as error:
        raise MessageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise MessageError(f"{str(path)!r} cannot be a path") from None
    if b"\0" in data:
        raise MessageError(f"{path} is not a text file")
    return data.decode("utf-8-sig", errors="replace")
