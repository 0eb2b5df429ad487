"""ResponseStore: responses on disk, so that `previous_response_id` goes on with them.

Each file holds one response and the items that led to it since the response before. The oldest files are
removed beyond a number and a size.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlx_qwen3.files import read_bytes, write_atomically

MAX_RESPONSES = 2000
MAX_BYTES = 256 * 2**20
MAX_LENGTH = 1000  # responses in one conversation
_MAX_FILE = 64 * 2**20
_RESPONSE_ID = re.compile(r"resp_[A-Za-z0-9]{1,64}")
_ITEM_ID = re.compile(r"[a-z]{2,4}_([A-Za-z0-9]{1,64})_(\d{1,4})")


class ResponseStore:
    """Stored responses. Ids that are not of the server's own form are never looked for, so none is a path."""

    def __init__(self, folder: Path, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES):
        """folder: is made, for this user alone, when the first response is stored."""
        self._folder, self._max_responses, self._max_bytes = folder, max_responses, max_bytes
        self._lock = threading.Lock()

    def save(self, response: Mapping[str, Any], items: list[Any]) -> None:
        """Store a response and the input items it was given. A full disk loses it, and nothing else."""
        path = self._path(response["id"])
        if path is None:
            return
        content = json.dumps({"response": response, "items": items}, ensure_ascii=False)
        if len(content) > _MAX_FILE:
            return
        with self._lock, suppress(OSError):
            write_atomically(path, content.encode("utf-8", "replace"))
            self._remove_oldest(keep=path)

    def response(self, response_id: str) -> dict[str, Any] | None:
        """A stored response."""
        stored = self._read(response_id)
        return None if stored is None else stored["response"]

    def items(self, response_id: str) -> list[Any] | None:
        """The input items of a stored response, those of earlier responses included."""
        stored = self._read(response_id)
        if stored is None:
            return None
        previous = stored["response"].get("previous_response_id")
        return [*((self.conversation(previous) or []) if previous else []), *stored["items"]]

    def conversation(self, response_id: str) -> list[Any] | None:
        """All items up to the end of a response, from the conversation's first; None if one is not stored."""
        turns: list[list[Any]] = []
        following: str | None = response_id
        while following is not None:
            stored = self._read(following)
            if stored is None or len(turns) == MAX_LENGTH:
                return None
            turns.append([*stored["items"], *stored["response"]["output"]])
            following = stored["response"].get("previous_response_id")
        return [item for turn in reversed(turns) for item in turn]

    def item(self, item_id: str) -> dict[str, Any] | None:
        """An output item of a stored response, by its id."""
        match = _ITEM_ID.fullmatch(item_id)
        response = self.response(f"resp_{match[1]}") if match else None
        output = response["output"] if response is not None else []
        return next((item for item in output if item.get("id") == item_id), None)

    def delete(self, response_id: str) -> bool:
        """Remove a response; whether there was one."""
        path = self._path(response_id)
        if path is None:
            return False
        with self._lock:
            try:
                path.unlink()
            except OSError:
                return False
        return True

    def _path(self, response_id: str) -> Path | None:
        return self._folder / f"{response_id}.json" if _RESPONSE_ID.fullmatch(response_id) else None

    def _read(self, response_id: str) -> dict[str, Any] | None:
        path = self._path(response_id)
        if path is None:
            return None
        try:
            stored = json.loads(read_bytes(path, _MAX_FILE))
            path.touch()  # what is still used is not the oldest
        except (OSError, ValueError, RecursionError):
            return None
        is_sound = isinstance(stored, dict) and isinstance(stored.get("items"), list)
        response = stored.get("response") if is_sound else None
        if not (isinstance(response, dict) and isinstance(response.get("output"), list)):
            return None
        return dict(stored)

    def _remove_oldest(self, keep: Path) -> None:
        files = sorted(
            ((stat.st_mtime_ns, stat.st_size, path) for path in self._folder.glob("resp_*.json")
             if (stat := _stat(path)) is not None),
            reverse=True,
        )  # fmt: skip
        size = 0
        for count, (_, nbytes, path) in enumerate(files, 1):
            size += nbytes
            if path != keep and (count > self._max_responses or size > self._max_bytes):
                with suppress(OSError):
                    path.unlink()


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None
