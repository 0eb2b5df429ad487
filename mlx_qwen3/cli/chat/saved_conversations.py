"""Where conversations are kept between runs: one JSON file each, readable by its user alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from mlx_qwen3.cache.folder import CacheFolder
from mlx_qwen3.errors import MessageError

KEPT = 200  # conversations saved by themselves; older ones make room
CACHE_BYTES = 8 * 10**9  # of all saved caches together
AUTOMATIC = re.compile(r"\d{8}-\d{6}(-\d+)?")


@dataclass(frozen=True)
class Saved:
    """A conversation on disk."""

    name: str
    title: str
    changed: datetime

    @property
    def shown(self) -> str:
        """What tells it from the others: its title, after its name where somebody gave it one."""
        return self.title if AUTOMATIC.fullmatch(self.name) else f"{self.name} · {self.title}"


class Store:
    """The folder of saved conversations."""

    def __init__(self, folder: Path | None = None):
        self._folder = folder or data_folder() / "conversations"
        self.caches = CacheFolder(self._folder.parent / "caches", CACHE_BYTES)
        """What models have read of them; without it a conversation is read anew."""

    def path(self, name: str) -> Path:
        """The file of the conversation `name`. Raises MessageError for a name that is no file name."""
        if not re.fullmatch(r"[\w][\w .-]{0,99}", name):
            raise MessageError(f"{name!r} cannot be a name: use letters, digits, spaces, dots and dashes")
        return self._folder / f"{name}.json"

    def find(self, text: str) -> Path:
        """A saved conversation: its name, its number in the list, how its title starts, or a file.

        Raises MessageError with the latest ones if there is none.
        """
        if text.endswith(".json") and Path(text).expanduser().is_file():
            return Path(text).expanduser()
        saved = self.list()
        for name in _matches(text, saved):
            return self.path(name)
        known = ", ".join(entry.name for entry in saved[:5]) or "none is saved"
        raise MessageError(f"there is no conversation {text!r}; the latest: {known}")

    def latest(self) -> Path:
        """The conversation changed last. Raises MessageError if none is saved."""
        saved = self.list()
        if not saved:
            raise MessageError("no conversation is saved yet")
        return self.path(saved[0].name)

    def list(self) -> list[Saved]:
        """All saved conversations, latest first; files that are none are left out."""
        found = [saved for path in self._folder.glob("*.json") if (saved := _read(path))]
        return sorted(found, key=lambda saved: saved.changed, reverse=True)

    def new_name(self) -> str:
        """A name for a conversation that saves itself, not used yet."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        names = (stamp if number == 1 else f"{stamp}-{number}" for number in count(1))
        return next(name for name in names if not self.path(name).exists())

    def forget_automatic(self, name: str) -> None:
        """Delete a conversation that saved itself, because it has a better name now."""
        if AUTOMATIC.fullmatch(name):
            self._delete(name)

    def make_room(self) -> None:
        """Delete the oldest of the conversations that saved themselves."""
        automatic = [saved for saved in self.list() if AUTOMATIC.fullmatch(saved.name)]
        for saved in automatic[KEPT:]:
            self._delete(saved.name)

    def _delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)
        self.caches.path(name).unlink(missing_ok=True)


def data_folder() -> Path:
    """Where the chat keeps its own things."""
    from platformdirs import user_data_path

    return user_data_path("mlx-qwen3")


def _matches(text: str, saved: list[Saved]) -> Iterator[str]:
    """The names that `text` may mean, the likeliest first."""
    yield from (entry.name for entry in saved if entry.name == text)
    if text.isdecimal() and 1 <= int(text) <= len(saved):
        yield saved[int(text) - 1].name
    yield from (entry.name for entry in saved if entry.title.casefold().startswith(text.casefold()))


def _read(path: Path) -> Saved | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        title = str(content["title"])
        changed = datetime.fromtimestamp(path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Saved(path.stem, title, changed)
