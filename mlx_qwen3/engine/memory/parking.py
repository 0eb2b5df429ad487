"""Parks the KV caches of idle sessions on disk, and brings them back for their next turn."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

import psutil
from platformdirs import user_cache_path

FOLDER_NAME = "parked"


class Parkable(Protocol):
    """A session's KV cache, as parking sees it."""

    last_used: float
    drafter: Any

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""

    def is_used_by(self, caches: Collection[int]) -> bool:
        """Whether one of the caches with these ids (of Python's `id`) is its own."""

    def park(self, path: Path) -> None:
        """Move the cache to `path`. One that cannot be written is forgotten, and prefilled again."""


class ParkingLot:
    """The KV caches of an engine's sessions, and a folder for those that are parked.

    The folder is named after the process and removed when the engine or the process ends. What killed
    processes left behind is removed by the next one that parks.
    """

    def __init__(self, parent: Path | None = None):
        """parent: where to put the folder; None is the user's cache folder."""
        self._parent = parent
        self._folder: Path | None = None
        self._parked = 0
        self._lock = threading.Lock()  # sessions are made on any thread
        self._caches: weakref.WeakSet[Parkable] = weakref.WeakSet()

    def add(self, cache: Parkable) -> None:
        """Have the cache of a session parked when memory is scarce."""
        with self._lock:
            self._caches.add(cache)

    def park_idle(self, busy: Collection[int], is_enough: Callable[[], bool]) -> int:
        """Park caches, the longest unused first, until there is memory enough.

        busy: ids of the caches that may not be touched. Returns the bytes that were freed.
        """
        with self._lock:
            caches = sorted(self._caches, key=lambda cache: cache.last_used)
        freed = 0
        for cache in caches:
            if cache.nbytes and not cache.is_used_by(busy):
                freed += cache.nbytes
                cache.park(self._new_path())
                if is_enough():
                    break
        return freed

    def let_go(self) -> None:
        """Have sessions forget what refers to a model that is unloaded."""
        with self._lock:
            for cache in self._caches:
                cache.drafter = None

    def _new_path(self) -> Path:
        if self._folder is None:
            parent = self._parent or user_cache_path("mlx-qwen3") / FOLDER_NAME
            try:
                parent.mkdir(parents=True, exist_ok=True)
                _remove_left_behind(parent)
                self._folder = Path(mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
            except OSError:
                return parent / "no-folder" / "cache"  # where nothing can be written; the caches are dropped
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._parked += 1
        return self._folder / f"{self._parked}.safetensors"


def _remove_left_behind(parent: Path) -> None:
    """Remove the folders of processes that are no more."""
    for folder in parent.iterdir():
        pid = folder.name.split("-")[0]
        if pid.isdigit() and int(pid) != os.getpid() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
