"""Builds a new folder beside its place and renames it when it is complete, so that no half of it is seen."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_qwen3.errors import ConversionError, ModelNotFoundError

LOCK = "lock"
# Kept free beyond the weights, for the tokenizer files and for other programs.
SPARE_BYTES = 100 * 10**6


@contextmanager
def staged(output: Path, size: int, force: bool) -> Iterator[Path]:
    """Yield a folder to fill. It becomes `output` when the block ends, and is removed if the block raises.

    A killed process or a download that failed leaves `.<name>.partial`, which the next conversion is given
    with its content. size: bytes of all weights, including those already there.
    force: replace the checkpoint at `output`, which stays until the new one is complete.
    Raises ConversionError if `output` cannot be written.
    """
    partial, old = (output.parent / f".{output.name}.{suffix}" for suffix in ("partial", "old"))
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
            except ModelNotFoundError:  # a download failed: keep the folder for the next try
                raise
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConversionError(f"{output} could not be written: {reason}; nothing was left behind") from error


@contextmanager
def temporary_folder(output: Path, is_wanted: bool) -> Iterator[Path | None]:
    """Yield a folder beside `output` that is removed when the block ends; None if it is not wanted.

    As with `staged`, a killed process or a failed download leaves it for the next try.
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
    """Undo the first rename of `_swap`, if a process was killed before the second."""
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
        raise ConversionError(f"{output} exists already", [{"output": ...}, {"force": True}])
    if not _is_checkpoint(output):
        raise ConversionError(f"{output} is not a checkpoint, so it is not replaced; name another folder")


def _is_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint and no subfolders, in which a user may keep other files."""
    has_folders = any(entry.is_dir() for entry in folder.iterdir())
    return (folder / "config.json").exists() and any(folder.glob("*.safetensors")) and not has_folders


def _size(partial: Path) -> int:
    """Bytes of weights that a killed process left. They are used again, or removed."""
    return sum(file.stat().st_size for file in partial.glob("*.safetensors"))


def _check_space(output: Path, size: int) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if free < size + SPARE_BYTES:
        raise ConversionError(
            f"{output} needs {(size + SPARE_BYTES) / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free; "
            "free some space or name a folder on another disk"
        )


@contextmanager
def _locked(partial: Path, output: Path) -> Iterator[None]:
    """Create or take over the folder, and lock it while this process runs."""
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
    """Flush `folder` and its files to the disk, so that none is incomplete after the rename."""
    for path in (*folder.iterdir(), folder):
        sync_path(path)


def sync_path(path: Path) -> None:
    """Flush the bytes of a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(partial: Path, output: Path, old: Path) -> None:
    if output.exists():
        output.rename(old)
    partial.rename(output)
    sync_path(output.parent)
    shutil.rmtree(old, ignore_errors=True)
