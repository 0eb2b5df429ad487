"""A rank's parts of the KV caches that rank 0 keeps in files: in a folder of this machine, up to a limit."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from mlx_qwen3.cache.layers import CacheLayers
from mlx_qwen3.cache.saved_state import LayerShape
from mlx_qwen3.errors import CacheError
from mlx_qwen3.files import remove_unfinished

MOST_BYTES = 8 * 10**9
SUFFIX = ".safetensors"
NAME = re.compile(r"[0-9a-f]{32}")


class KeptParts:
    """The parts of rank `rank`. Those not used for longest are removed; their caches are prefilled again.

    Args:
        rank: Of this process. Several may share a machine.
        folder: Where the files are; None is the user's cache folder.
        limit: Bytes that the files may take together.
    """

    def __init__(self, rank: int, folder: Path | None = None, limit: int = MOST_BYTES):
        self._rank, self._limit = rank, limit
        self._folder = folder

    def save(self, name: str, layers: CacheLayers, replaces: str | None = None) -> None:
        """Keep `layers` under a name that rank 0 chose. Raises CacheError.

        replaces: what they are kept in place of.
        """
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            remove_unfinished(path.parent)
        except OSError as error:
            raise CacheError(f"{path.parent} cannot be used for caches: {error.strerror or error}") from None
        layers.save(path, {})
        if replaces is not None:
            with suppress(OSError):
                self._path(replaces).unlink(missing_ok=True)
        self._trim(path)

    def load(
        self, name: str, empty: CacheLayers, tokens: int, like: Sequence[int], shape: LayerShape | None
    ) -> CacheLayers:
        """What was kept under `name`, as `CacheLayers.loaded`. Raises CacheError if it is gone."""
        path = self._path(name)
        if not path.exists():
            raise CacheError("its part of that KV cache is not there")
        layers = empty.read_from(path, tokens, tuple(like), shape)
        with suppress(OSError):
            os.utime(path)
        return layers

    def _path(self, name: str) -> Path:
        if NAME.fullmatch(name) is None:
            raise CacheError(f"a part of a KV cache cannot be called {name!r}")
        folder = self._folder or user_cache_path("mlx-qwen3") / "parts"
        return folder / f"{name}-{self._rank}{SUFFIX}"

    def _trim(self, newest: Path) -> None:
        """Remove the parts used longest ago, of this rank, beyond the limit."""
        with suppress(OSError):
            files = [(path, path.stat()) for path in newest.parent.glob(f"*-{self._rank}{SUFFIX}")]
            total = sum(stat.st_size for _, stat in files)
            for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
                if total <= self._limit or path == newest:
                    break
                path.unlink(missing_ok=True)
                total -= stat.st_size
