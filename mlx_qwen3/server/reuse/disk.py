"""DiskTier: KV caches of prefixes as files, up to a limit of bytes. For the engine's thread.

The folder of a model is named after what its caches depend on. A file is written whole or not at all, so a
killed server leaves none that is broken; the ids of each are in its header, which is all that is read until
a prompt begins like it.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from mlx_qwen3.cache.prompt_cache import PromptCache, common_prefix
from mlx_qwen3.cache.serialization import read_metadata
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.errors import CacheError
from mlx_qwen3.files import remove_unfinished
from mlx_qwen3.model.config import ModelConfig

MOST_FILES = 2000
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class SavedPrefix:
    """A saved cache. key: what it depends on, and whose it is."""

    path: Path
    ids: array[int]
    key: str
    anchor: int
    nbytes: int

    @property
    def tokens(self) -> int:
        return len(self.ids)


class DiskTier:
    """The saved caches of one engine's model.

    Args:
        core: The engine.
        folder: Where the files are; made if it is missing, for its owner alone.
        limit: Bytes that the files may take together.
        least: Tokens below which a cache is not worth a file.
    """

    def __init__(self, core: EngineCore, folder: Path, limit: int, least: int):
        self._core, self._folder, self._limit, self._least = core, folder, limit, least
        self._fingerprints: dict[int, dict[str, str]] = {}
        self._saved: list[SavedPrefix] = []  # used latest last
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            remove_unfinished(folder)
            files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime)
        except OSError as error:
            raise CacheError(f"{folder} cannot be used for caches: {error.strerror or error}") from None
        for file in files:
            if (saved := _read(file)) is not None:
                self._saved.append(saved)
            else:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
        self._trim()

    @property
    def count(self) -> int:
        return len(self._saved)

    @property
    def nbytes(self) -> int:
        return sum(saved.nbytes for saved in list(self._saved))

    def wants(self, cache: PromptCache) -> bool:
        """Whether a cache is worth a file."""
        return self._least <= len(cache.ids) and cache.nbytes <= self._limit

    def find(self, ids: Sequence[int], scope: str, config: ModelConfig, least: int) -> SavedPrefix | None:
        """The saved cache that shares most with a prompt, if that is `least` tokens or more."""
        key, prompt = self._key(scope, config), array("i", ids)
        shared = [(common_prefix(saved.ids, prompt), saved) for saved in self._saved if saved.key == key]
        most, best = max(shared, key=lambda pair: pair[0], default=(0, None))
        return best if best is not None and most >= least else None

    def load(self, saved: SavedPrefix, config: ModelConfig) -> PromptCache:
        """The cache of a file. Raises CacheError."""
        cache = self._core.load_cache(saved.path, self._fingerprint(config))
        with suppress(OSError):
            os.utime(saved.path)
        if saved in self._saved:
            self._saved.remove(saved)
            self._saved.append(saved)
        return cache

    def save(self, cache: PromptCache, scope: str, config: ModelConfig, anchor: int) -> SavedPrefix | None:
        """Write a cache. None if the disk does not take it: that costs a prefill, and no request."""
        key = self._key(scope, config)
        path = self._folder / f"{uuid4().hex}{SUFFIX}"
        try:
            cache.save(path, {**self._fingerprint(config), "key": key, "anchor": str(anchor)})
            size = path.stat().st_size
        except (CacheError, OSError):
            return None
        ids = array("i", cache.ids)
        # A file that holds only the beginning of the new one is of no more use.
        for other in [
            other for other in self._saved if other.key == key and ids[: other.tokens] == other.ids
        ]:
            self.remove(other)
        saved = SavedPrefix(path, ids, key, anchor, size)
        self._saved.append(saved)
        self._trim()
        return saved

    def release(self, saved: SavedPrefix) -> None:
        """Its conversation goes on elsewhere: it is the first to go when room is needed."""
        if saved in self._saved:
            self._saved.remove(saved)
            self._saved.insert(0, saved)

    def remove(self, saved: SavedPrefix) -> None:
        """Delete a file."""
        if saved in self._saved:
            self._saved.remove(saved)
        with suppress(OSError):
            saved.path.unlink(missing_ok=True)

    def _trim(self) -> None:
        while self._saved and (self.nbytes > self._limit or len(self._saved) > MOST_FILES):
            self.remove(self._saved[0])

    def _fingerprint(self, config: ModelConfig) -> dict[str, str]:
        known = self._fingerprints.get(config.context_length)
        if known is None:
            known = {**self._core.fingerprint(config), "context": str(config.context_length)}
            self._fingerprints[config.context_length] = known
        return known

    def _key(self, scope: str, config: ModelConfig) -> str:
        made_of = [scope, self._fingerprint(config), self._core.cache_config.changes()]
        return blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=16).hexdigest()


def _read(file: Path) -> SavedPrefix | None:
    """What a file holds, by its header; None if that cannot be read."""
    try:
        metadata = read_metadata(file)
        ids = array("i", json.loads(metadata["ids"]))
        return SavedPrefix(file, ids, metadata["key"], int(metadata["anchor"]), file.stat().st_size)
    except (CacheError, OSError, KeyError, ValueError, TypeError, OverflowError):
        return None
