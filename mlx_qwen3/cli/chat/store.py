"""Where conversations are kept between runs: one JSON file each, readable by its user alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlx_qwen3.cache.folder import CacheFolder
from mlx_qwen3.errors import MessageError

KEPT = 200  # conversations saved by themselves; older ones make room
CACHE_BYTES = 8 * 10**9  # of all saved caches together
AUTOMATIC = re.compile(r"\d{8}-\d{6}")


@dataclass(frozen=True)
class Saved:
    """A conversation on disk."""

    name: str
    title: str
    changed: datetime


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

    def find(self, name: str) -> Path:
        """A saved conversation, by name or file. Raises MessageError naming the nearest if there is none."""
        if name.endswith(".json") and Path(name).expanduser().is_file():
            return Path(name).expanduser()
        path = self.path(name)
        if not path.is_file():
            known = ", ".join(saved.name for saved in self.list()[:5]) or "none is saved"
            raise MessageError(f"there is no conversation {name!r}; the latest: {known}")
        return path

    def list(self) -> list[Saved]:
        """All saved conversations, latest first; files that are none are left out."""
        found = [saved for path in self._folder.glob("*.json") if (saved := _read(path))]
        return sorted(found, key=lambda saved: saved.changed, reverse=True)

    def new_name(self) -> str:
        """A name for a conversation that saves itself."""
        return datetime.now().strftime("%Y%m%d-%H%M%S")

    def make_room(self) -> None:
        """Delete the oldest of the conversations that saved themselves."""
        automatic = [saved for saved in self.list() if AUTOMATIC.fullmatch(saved.name)]
        for saved in automatic[KEPT:]:
            self.path(saved.name).unlink(missing_ok=True)
            self.caches.path(saved.name).unlink(missing_ok=True)


def data_folder() -> Path:
    """Where the chat keeps its own things."""
    from platformdirs import user_data_path

    return user_data_path("mlx-qwen3")


def _read(path: Path) -> Saved | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        title = str(content["title"])
        changed = datetime.fromtimestamp(path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Saved(path.stem, title, changed)
