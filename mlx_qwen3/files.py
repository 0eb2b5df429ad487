"""Reads regular files within a size limit, writes files atomically, and locks them between processes.

If the process is killed while it writes, the path holds the old content or all of the new.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mlx_qwen3.errors import Qwen3Error

MAX_JSON_BYTES = 256 * 2**20  # the largest JSON file of a published checkpoint has some 20 MB


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of the regular file at `path`, at most `limit` + 1 bytes of it.

    Raises OSError, also for a FIFO, which nothing may ever write to, and for a device, which may never end.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read(limit + 1)


def read_json_object(
    path: Path, error: type[Qwen3Error], advice: str = "", limit: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """The JSON object in the file at `path`, of at most `limit` bytes.

    Raises `error` if there is none. Its message names the file and ends with `advice`.
    """
    advice = advice and f"; {advice}"
    try:
        data = read_bytes(path, limit)
        if len(data) > limit:
            raise error(f"{path} is larger than {limit // 2**20} MiB{advice}")
        content = json.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise error(f"{path} is missing{advice}") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not valid JSON: {problem}{advice}") from None
    if not isinstance(content, dict):
        raise error(f"{path} does not hold a JSON object{advice}")
    return content


def file_version(path: Path) -> object:
    """A value that differs after every change of a file that is replaced as a whole; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def text_lines(text: str) -> list[str]:
    """The lines of `text`, which end at a line feed alone, and without a byte order mark.

    `str.splitlines` also splits at characters that JSON strings may contain.
    """
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]


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
    handle, name = _new_temporary_file(path)
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


def _new_temporary_file(path: Path) -> tuple[int, str]:
    """A new file beside `path`, locked as long as it is open: see remove_unfinished."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        if lock_file(handle, wait=False) and os.path.exists(name):  # noqa: PTH110  `name` is text
            return handle, name
        os.close(handle)  # remove_unfinished was faster than the lock


def remove_unfinished(folder: Path) -> None:
    """Delete the temporary files of killed processes in `folder`. One that is being written is locked."""
    for path in folder.glob(".*.part"):
        with suppress(OSError), path.open("rb") as file:
            if lock_file(file.fileno(), wait=False):
                path.unlink()


@contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file at `path` during the block; other processes and threads wait for its end.

    Yields whether the lock was taken, which without `wait` may be False. The lock ends with the process,
    so a kill leaves none behind. The empty file stays. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield lock_file(handle, wait)
    finally:
        os.close(handle)


def lock_file(handle: int, wait: bool) -> bool:
    """Lock an open file. True also on file systems without locks, where nothing can be held."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
