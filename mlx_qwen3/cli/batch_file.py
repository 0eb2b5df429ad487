"""Files of `generate --batch`: prompts in, results out, and what is kept of a run that was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from mlx_qwen3.atomic_write import write_atomically
from mlx_qwen3.engine.batch import BatchRequest, BatchResult
from mlx_qwen3.errors import MessageError, Qwen3Error
from mlx_qwen3.generation.sampling import SamplingParams

SAMPLING = [item.name for item in fields(SamplingParams)]
OWN = ["id", "prompt", "messages", "thinking", "thinking_budget", "schema"]

KINDS = {"prompt": str, "messages": list, "thinking": bool, "thinking_budget": int, "schema": dict}


def read_requests(text: str, name: str) -> list[BatchRequest]:
    """The requests of a file: a prompt a line, or a JSON object a line if the first line is one.

    Empty lines are none; a request without an id is called by the number of its line. Raises
    MessageError naming file, line and what is wrong with it.
    """
    lines = [(number, line) for number, line in enumerate(_lines(text), 1) if line.strip()]
    if not lines or not isinstance(_json(lines[0][1]), dict):
        return [BatchRequest(prompt=line, id=number) for number, line in lines]
    requests = []
    for number, line in lines:
        try:
            requests.append(_request(_json(line), number))
        except Qwen3Error as error:
            raise MessageError(f"{name}, line {number}: {error}") from error
    return requests


def _lines(text: str) -> list[str]:
    """Without their ends; not what `str.splitlines` takes for ends, which JSON may hold as they are."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _request(row: Any, number: int) -> BatchRequest:
    if not isinstance(row, dict):
        raise MessageError("is not a JSON object, as the first line is")
    unknown = [name for name in row if name not in OWN + SAMPLING]
    if unknown:
        raise MessageError(f"there is no field {unknown[0]!r}; there are {', '.join(OWN + SAMPLING)}")
    for name, kinds in KINDS.items():
        if not isinstance(row.get(name), kinds | None):
            raise MessageError(f"{name} is {row[name]!r:.40}, which is of the wrong type")
    own = {name: row[name] for name in OWN if name in row}
    sampling = {name: row[name] for name in SAMPLING if name in row}
    SamplingParams().with_values(**sampling)  # says what is out of range
    return BatchRequest(**{"id": number, **own}, sampling=sampling)


def result_line(request: BatchRequest, result: BatchResult) -> str:
    """One line of JSON; what was asked decides which fields there are."""
    if result.error is not None:
        return _line({"id": request.id, "error": result.error})
    said: dict[str, Any] = {"text": result.text}
    if request.messages is not None:
        said = {"thinking": result.thinking, "answer": result.text}
    if result.parsed is not None:
        said["parsed"] = result.parsed
    counts = {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens}
    if request.messages is not None:
        counts["thinking_tokens"] = result.thinking_tokens
    return _line({"id": request.id, **said, "finish_reason": result.finish_reason, **counts})


def _line(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, in somebody's id
        return json.dumps(value)
    return text


class ResultFile:
    """Results in a file, which appears once all are there; until then they are in `<name>.partial`.

    Results that are there already, of the same requests under the same settings, are `done`, but for
    those that failed.
    Raises MessageError if the file exists.
    """

    def __init__(self, path: Path, requests: Sequence[BatchRequest], settings: Mapping[str, Any]):
        if path.exists():
            raise MessageError(f"{path} exists already; remove it, or write to another file")
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        self.done: dict[int, str] = {}
        self._keys = [_key(request, settings) for request in requests]
        self._find_done(requests)
        self._file = self._open()

    def _find_done(self, requests: Sequence[BatchRequest]) -> None:
        waiting: dict[str, list[int]] = {}
        for index, key in reversed(list(enumerate(self._keys))):
            waiting.setdefault(key, []).append(index)
        for line in self._kept():
            entry = _json(line) or {}  # nothing where a run was killed
            if waiting.get(entry.get("key", "")) and "error" not in entry["result"]:
                index = waiting[entry["key"]].pop()
                self.done[index] = _line({**entry["result"], "id": requests[index].id})

    def _kept(self) -> list[str]:
        try:
            return _lines(self.partial.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return []

    def _open(self) -> TextIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.partial.open("a", encoding="utf-8")
        except OSError as error:
            raise MessageError(f"{self.partial} cannot be written: {error.strerror}") from error
        if file.tell():
            file.write("\n")  # after a line that was cut off; an empty one means nothing
        return file

    def add(self, index: int, line: str) -> None:
        """The result of request `index`."""
        self.done[index] = line
        self._file.write(f'{{"key": "{self._keys[index]}", "result": {line}}}\n')
        self._file.flush()

    def finish(self) -> None:
        """Put the whole file in its place."""
        content = "".join(self.done[index] + "\n" for index in range(len(self._keys)))
        write_atomically(self.path, content, mode=0o644)
        self._file.close()
        self.partial.unlink()


def _key(request: BatchRequest, settings: Mapping[str, Any]) -> str:
    """The same for what gives the same result, whatever it is called."""
    asked = [request.prompt, request.messages, request.sampling, request.thinking, request.thinking_budget]
    asked += [request.schema] if request.schema is not None else []
    text = json.dumps([asked, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class ResultStream:
    """Results on a stream, in the order of the requests, each as soon as those before it are there."""

    def __init__(self, file: TextIO):
        self.done: dict[int, str] = {}
        self._file, self._next = file, 0

    def add(self, index: int, line: str) -> None:
        self.done[index] = line
        while self._next in self.done:
            self._file.write(self.done[self._next] + "\n")
            self._next += 1
        self._file.flush()

    def finish(self) -> None:
        """Everything has been written."""
