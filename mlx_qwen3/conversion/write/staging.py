"""A new folder appears whole or not at all: it is built beside its place and renamed when done."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_qwen3.errors import ConversionError, ModelNotFoundError

LOCK = "lock"
# Kept free beyond the weights: tokenizer files, and room for a machine to breathe.
SPARE_BYTES = 100 * 10**6


@contextmanager
def staged(output: Path, size: int, force: bool) -> Iterator[Path]:
    """Yield a folder to fill, which becomes `output` when the block ends, and vanishes if it raises.

    A killed process, or a download that broke off, leaves `.<name>.partial`, which the next one is given as
    it is. size: bytes the
    weights come to, those already there included.
    force: replace the checkpoint at `output`, which stays until the new one is whole.
    Raises ConversionError when that cannot work, or when the disk fails.
    """
    partial, old = (output.parent / f".{output.name}.{kind}" for kind in ("partial", "old"))
    try:
        _recover(output, old)
        _check_output(output, force)
        _check_space(output, size - _size(partial))
        with _locked(partial, output):
            try:
                yield partial
                _sync(partial)
                (partial / LOCK).unlink()
                _swap(partial, output, old)
            except ModelNotFoundError:  # a download broke off: the next try goes on from here
                raise
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConversionError(f"{output} could not be written: {reason}; nothing was left behind") from error


@contextmanager
def disposable(output: Path, is_wanted: bool) -> Iterator[Path | None]:
    """Yield a folder beside `output` for what need not be kept, or None; it vanishes when the block ends.

    As with `staged`, a killed process or a broken download leaves it for the next try.
    """
    folder = output.with_name(f".{output.name}.source")
    try:
        yield folder if is_wanted else None
    except ModelNotFoundError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _recover(output: Path, old: Path) -> None:
    """Put back what a process killed between the two renames of `_swap` had moved away."""
    if old.exists() and not output.exists():
        old.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def _check_output(output: Path, force: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise ConversionError(f"{output} is a file; name a folder that does not exist yet")
    if not any(output.iterdir()):
        return
    if not force:
        raise ConversionError(f"{output} exists; name another folder or have it replaced", [{"force": True}])
    if not _is_checkpoint(output):
        raise ConversionError(f"{output} is not a checkpoint, so it is not replaced; name another folder")


def _is_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint and nothing a person would miss."""
    has_folders = any(entry.is_dir() for entry in folder.iterdir())
    return (folder / "config.json").exists() and any(folder.glob("*.safetensors")) and not has_folders


def _size(partial: Path) -> int:
    """Bytes a killed process left: they are used again, or make room."""
    return sum(file.stat().st_size for file in partial.glob("*.safetensors"))


def _check_space(output: Path, size: int) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if free < size + SPARE_BYTES:
        raise ConversionError(
            f"{output} needs {(size + SPARE_BYTES) / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free; "
            "make room or name a folder on another disk"
        )


@contextmanager
def _locked(partial: Path, output: Path) -> Iterator[None]:
    """Make or take over the folder, marked as in use for as long as this process lives."""
    partial.mkdir(exist_ok=True)
    with (partial / LOCK).open("a") as lock:
        if not _lock(lock.fileno()):
            raise ConversionError(f"another conversion to {output} is running; wait for it to finish")
        yield


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(folder: Path) -> None:
    """Everything in `folder` to the disk, so that after the rename nothing can be half there."""
    for path in (*folder.iterdir(), folder):
        sync_one(path)


def sync_one(path: Path) -> None:
    """Make sure a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(partial: Path, output: Path, old: Path) -> None:
    if output.exists():
        output.rename(old)
    partial.rename(output)
    sync_one(output.parent)
    shutil.rmtree(old, ignore_errors=True)
