"""Conversations and KV caches kept on disk between runs.

A conversation is one JSON file that only its user can read. A cache holds what the model computed for a
conversation; without it, the conversation is prefilled again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from mlx_qwen3.errors import CacheError, MessageError, Qwen3Error, is_hidden
from mlx_qwen3.files import file_lock, file_version, read_bytes, remove_unfinished

MAX_AUTOMATIC = 200  # conversations with automatic names; older ones are deleted
MAX_CACHE_BYTES = 8 * 10**9  # of all saved caches together
AUTOMATIC_NAME = re.compile(r"\d{8}-\d{6}(-\d+)?")
MAX_CONVERSATION_BYTES = 2**26
MAX_NAME_BYTES = 220  # file systems take 255, of which temporary files need some
# A file name of one part, not hidden. What hides in it is checked beside this.
VALID_NAME = re.compile(r"[^./\\\s][^/\\]{0,99}")


@dataclass(frozen=True)
class SavedConversation:
    """A conversation on disk.

    turns: messages of the user. tokens: of the whole, 0 if that was not saved with it.
    """

    name: str
    title: str
    changed: datetime
    turns: int
    tokens: int

    @property
    def age(self) -> str:
        """How long ago it changed, in words; its date after a month."""
        minutes = int((datetime.now() - self.changed).total_seconds() // 60)
        if minutes < 1:
            return "just now"
        if minutes < 60:
            return f"{minutes} min ago"
        if minutes < 24 * 60:
            return f"{minutes // 60} h ago"
        days = minutes // (24 * 60)
        return f"{days} {'day' if days == 1 else 'days'} ago" if days <= 30 else f"{self.changed:%Y-%m-%d}"

    @property
    def short_name(self) -> str:
        """What `find` knows it by: its name, if the user gave it one, or the start of its title."""
        return self.title[:30].strip() if AUTOMATIC_NAME.fullmatch(self.name) else self.name

    @property
    def label(self) -> str:
        """Its title; after its name, if the user gave it one."""
        return self.title if AUTOMATIC_NAME.fullmatch(self.name) else f"{self.name} · {self.title}"


class CacheFolder:
    """Saved caches in `folder`, at most `limit` bytes together. Names are those of conversations."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit

    def path(self, name: str) -> Path:
        """The file of the cache `name`. Raises CacheError for an invalid name."""
        _check_name(name, CacheError)
        return self.folder / f"{name}.safetensors"

    def find(self, name: str) -> Path | None:
        """The file of the cache `name`, marked as just used; None if there is none."""
        path = self.path(name)
        if not path.is_file():
            return None
        os.utime(path)
        return path

    def evict(self) -> None:
        """Delete what killed saves left, then the least recently used caches beyond the limit."""
        remove_unfinished(self.folder)
        files = [(file, file.stat()) for file in self.folder.glob("*.safetensors")]
        total = sum(status.st_size for _, status in files)
        for file, status in sorted(files, key=lambda entry: entry[1].st_mtime):
            if total <= self.limit:
                return
            file.unlink(missing_ok=True)
            total -= status.st_size


class ConversationStore:
    """The folder of saved conversations, and `caches`, the folder of their KV caches."""

    def __init__(self, folder: Path | None = None):
        self._folder = folder or data_folder() / "conversations"
        self._seen: dict[str, object] = {}  # name -> its file's version when this chat last read or wrote it
        self.caches = CacheFolder(self._folder.parent / "caches", MAX_CACHE_BYTES)
        self.saves_caches = True

    def path(self, name: str) -> Path:
        """The file of the conversation `name`. Raises MessageError for an invalid name."""
        _check_name(name, MessageError)
        return self._folder / f"{name}.json"

    def mark_read(self, path: Path) -> None:
        """Note that this chat is about to read the conversation at `path`, to continue it."""
        if path.parent == self._folder:
            self._seen[path.stem] = file_version(path)

    def save(self, name: str, write: Callable[[Path], object]) -> str:
        """Have `write` write the conversation to its file, and return the name it has now.

        Without a name it gets an automatic one, and so does one whose file another chat has changed: neither
        is lost. Raises MessageError if it cannot be written.
        """
        try:
            with self._lock():
                if not name or self._is_of_another(name):
                    name = self.new_name()
                write(self.path(name))
                self._seen[name] = file_version(self.path(name))
        except OSError as error:
            raise MessageError(f"{self._folder} cannot be written: {error.strerror or error}") from None
        return name

    def save_as(self, name: str, write: Callable[[Path], object]) -> None:
        """As `save`, under this name alone. Raises MessageError if another conversation has it."""
        self.path(name)
        if self._is_of_another(name):
            raise MessageError(f"there is a conversation {name} already; take another name")
        if self.save(name, write) != name:
            raise MessageError(f"another chat has just saved a conversation {name}; take another name")

    def _is_of_another(self, name: str) -> bool:
        """Whether there is a file of this name that is not what this chat last read or wrote."""
        version = file_version(self.path(name))
        return version is not None and version != self._seen.get(name)

    def _lock(self) -> AbstractContextManager[bool]:
        return file_lock(self._folder / ".lock")

    def find(self, text: str) -> Path:
        """The conversation that `text` names: by name, number in the list, start of its title, or file.

        Raises MessageError, which lists the latest conversations, if there is none.
        """
        with suppress(OSError, RuntimeError, ValueError):  # too long for a path; no such user
            if text.endswith(".json") and Path(text).expanduser().is_file():
                return Path(text).expanduser()
        saved = self.list()
        for name in _matches(text, saved):
            return self.path(name)
        names = ", ".join(entry.short_name for entry in saved[:5])
        hint = f"the latest: {names}" if saved else "none is saved yet"
        raise MessageError(f"there is no conversation {text!r}; {hint}")

    def find_listed(self, text: str) -> SavedConversation:
        """The conversation of the list that `text` names. Raises MessageError if there is none."""
        path = self.find(text)
        if path.parent != self._folder or (saved := _read(path)) is None:
            raise MessageError(f"{text} is a file, not a name in /sessions")
        return saved

    def latest(self) -> Path:
        """The conversation changed last. Raises MessageError if none is saved."""
        saved = self.list()
        if not saved:
            raise MessageError("no conversation is saved yet")
        return self.path(saved[0].name)

    def list(self) -> list[SavedConversation]:
        """All saved conversations, latest first. Other files are left out."""
        saved = [entry for path in self._folder.glob("*.json") if (entry := _read(path))]
        return sorted(saved, key=lambda entry: entry.changed, reverse=True)

    def new_name(self) -> str:
        """An unused automatic name: the date and time."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        names = (stamp if number == 1 else f"{stamp}-{number}" for number in count(1))
        return next(name for name in names if not self.path(name).exists())

    def delete(self, name: str) -> None:
        """Delete the conversation `name` and its cache. Raises MessageError."""
        try:
            self._delete(name)
        except OSError as error:
            raise MessageError(f"{name} cannot be deleted: {error.strerror}") from None

    def rename(self, name: str, new: str) -> None:
        """Give the conversation `name` and its cache a new name. Raises MessageError."""
        path, target = self.path(name), self.path(new)
        try:
            os.link(path, target)  # unlike a rename, this never replaces a file
            cache = self.caches.path(name)
            if cache.exists():
                cache.replace(self.caches.path(new))
            path.unlink()
            if name in self._seen:
                del self._seen[name]
                self._seen[new] = file_version(target)
        except FileExistsError:
            raise MessageError(f"there is a conversation {new!r} already") from None
        except OSError as error:
            raise MessageError(f"{name} cannot be renamed: {error.strerror}") from None

    def delete_automatic(self, name: str) -> None:
        """Delete the conversation if `name` is automatic. It was saved under another name."""
        if AUTOMATIC_NAME.fullmatch(name):
            self._delete(name)

    def delete_oldest(self) -> None:
        """Delete the oldest conversations with automatic names, beyond MAX_AUTOMATIC."""
        remove_unfinished(self._folder)
        automatic = [entry for entry in self.list() if AUTOMATIC_NAME.fullmatch(entry.name)]
        for entry in automatic[MAX_AUTOMATIC:]:
            self._delete(entry.name)

    def _delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)
        self.caches.path(name).unlink(missing_ok=True)


def data_folder() -> Path:
    """The folder for the chat's own files."""
    from platformdirs import user_data_path

    return user_data_path("mlx-qwen3")


def _check_name(name: str, error: type[Qwen3Error]) -> None:
    """Raises `error` for a name that may not be a safe file name."""
    if not _is_valid_name(name):
        raise error(f"{name!r} cannot be a name: use letters, digits, spaces, dots and dashes")


def _is_valid_name(name: str) -> bool:
    is_short = len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES
    return is_short and VALID_NAME.fullmatch(name) is not None and not any(map(is_hidden, name))


def _matches(text: str, saved: list[SavedConversation]) -> Iterator[str]:
    """The names that `text` may mean, the best match first."""
    yield from (entry.name for entry in saved if entry.name == text)
    if text.isdecimal() and 1 <= int(text) <= len(saved):
        yield saved[int(text) - 1].name
    yield from (entry.name for entry in saved if entry.title.casefold().startswith(text.casefold()))


def _read(path: Path) -> SavedConversation | None:
    """What the list shows of the file at `path`; None for a file that is no conversation."""
    if not _is_valid_name(path.stem):
        return None
    try:
        content = json.loads(read_bytes(path, MAX_CONVERSATION_BYTES).decode("utf-8-sig"))
        title, roles = str(content["title"]), [message["role"] for message in content["messages"]]
        tokens = content["settings"].get("tokens", 0)
        changed = datetime.fromtimestamp(path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return SavedConversation(
        path.stem, title, changed, roles.count("user"), tokens if type(tokens) is int else 0
    )
