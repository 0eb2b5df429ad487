"""Saved caches in a folder of limited size: the least recently used make room."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlx_qwen3.errors import CacheError


class CacheFolder:
    """The caches in `folder`, by name, together no more than `limit` bytes."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit

    def path(self, name: str) -> Path:
        """The file of the cache `name`. Raises CacheError for a name that is no file name."""
        if not re.fullmatch(r"\w[\w .-]{0,99}", name):
            raise CacheError(f"{name!r} cannot be a name: use letters, digits, spaces, dots and dashes")
        return self.folder / f"{name}.safetensors"

    def use(self, name: str) -> Path | None:
        """The file of a cache that is about to be loaded; None if there is none (any more)."""
        path = self.path(name)
        if not path.is_file():
            return None
        os.utime(path)
        return path

    def make_room(self) -> None:
        """Delete what was used longest ago until the rest is within the limit."""
        files = [(file, file.stat()) for file in self.folder.glob("*.safetensors")]
        total = sum(status.st_size for _, status in files)
        for file, status in sorted(files, key=lambda entry: entry[1].st_mtime):
            if total <= self.limit:
                return
            file.unlink(missing_ok=True)
            total -= status.st_size
