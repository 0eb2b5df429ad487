"""Files of `generate --batch`: the requests, the results, and the results kept from a killed run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from mlx_qwen3.cli.output import write_json
from mlx_qwen3.engine.batch import BatchRequest, BatchResult
from mlx_qwen3.errors import MessageError, Qwen3Error
from mlx_qwen3.files import lock_file, text_lines, write_atomically
from mlx_qwen3.generation.params import SamplingParams

REQUEST_FIELDS = [
    *("id", "prompt", "messages", "thinking", "thinking_budget", "schema", "n", "continue_final_message")
]
SAMPLING_FIELDS = [item.name for item in fields(SamplingParams)]
FIELD_TYPES = {
    "prompt": str,
    "messages": list,
    "thinking": bool,
    "thinking_budget": int,
    "schema": dict,
    "n": int,
    "continue_final_message": bool,
}


@dataclass(frozen=True)
class Choice(BatchRequest):
    """One of the `n` results that a line asks for."""

    choice: int = 0


def read_requests(text: str, name: str, is_raw: bool = False) -> list[BatchRequest]:
    """The requests of a file: one JSON object per line if the first line is one, else one message per line.

    is_raw: plain lines are texts to continue. Empty lines and a byte order mark are skipped. The default id
    of a request is its line number. Raises MessageError that names the file, the line and the problem.
    """
    lines = list(enumerate(text_lines(text), 1))
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines or not isinstance(_json(lines[0][1]), dict):
        if is_raw:
            return [BatchRequest(prompt=line, id=number) for number, line in lines]
        return [
            BatchRequest(messages=[{"role": "user", "content": line}], id=number) for number, line in lines
        ]
    requests = []
    for number, line in lines:
        try:
            requests += _choices(_request(_json(line), number))
        except Qwen3Error as error:
            raise MessageError(f"{name}, line {number}: {error}") from error
    return requests


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _request(row: Any, number: int) -> BatchRequest:
    if not isinstance(row, dict):
        raise MessageError("is not a JSON object, although the first line is")
    unknown = [name for name in row if name not in REQUEST_FIELDS + SAMPLING_FIELDS]
    if unknown:
        raise MessageError(
            f"there is no field {unknown[0]!r}; there are {', '.join(REQUEST_FIELDS + SAMPLING_FIELDS)}"
        )
    for name, field_type in FIELD_TYPES.items():
        # Not isinstance: a bool is also an int.
        if row.get(name) is not None and type(row[name]) is not field_type:
            raise MessageError(f"{name} is {row[name]!r:.40}, which is of the wrong type")
    options = {name: row[name] for name in REQUEST_FIELDS if name in row}
    sampling = {name: row[name] for name in SAMPLING_FIELDS if name in row}
    SamplingParams().with_values(**sampling)  # raises for a value out of range
    return BatchRequest(**{"id": number, **options}, sampling=sampling)


def _choices(request: BatchRequest) -> list[BatchRequest]:
    """A request for each result, so that a run that was killed goes on with those that are missing."""
    if request.n == 1:
        return [request]
    values = {item.name: getattr(request, item.name) for item in fields(BatchRequest)} | {"n": 1}
    seed = request.sampling.get("seed")
    choices: list[BatchRequest] = []
    for number in range(request.n):
        own = {} if seed is None else {"seed": seed + number}  # as Engine.generate_batch does
        choices.append(Choice(**{**values, "sampling": {**request.sampling, **own}}, choice=number))
    return choices


def _names(request: BatchRequest) -> dict[str, Any]:
    """What says whose result a line is."""
    return {"id": request.id} | ({"choice": request.choice} if isinstance(request, Choice) else {})


def result_line(request: BatchRequest, result: BatchResult) -> str:
    """The result as one line of JSON. A completion has `text`; a conversation `thinking` and `answer`."""
    if result.error is not None:
        return _line({**_names(request), "error": result.error})
    output: dict[str, Any] = {"text": result.text}
    if request.messages is not None:
        output = {"thinking": result.thinking, "answer": result.text}
    if result.parsed is not None:
        output["parsed"] = result.parsed
    counts = {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens}
    if request.messages is not None:
        counts["thinking_tokens"] = result.thinking_tokens
    return _line({**_names(request), **output, "finish_reason": result.finish_reason, **counts})


def _line(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, possible in an id
        return json.dumps(value)
    return text


def _is_answer(result: dict[str, Any]) -> bool:
    """Whether a result of an earlier run is one that `result_line` writes for a request that was answered."""
    text, reason = result.get("text", result.get("answer")), result.get("finish_reason")
    return "error" not in result and isinstance(text, str) and isinstance(reason, str)


class ResultFile:
    """Results in a file. They are collected in `<name>.partial`; the file appears once all are there.

    done: index -> line of the finished requests. At first these are the successful results of an earlier
    run for the same requests and settings. Raises MessageError if the file exists.
    """

    def __init__(self, path: Path, requests: Sequence[BatchRequest], settings: Mapping[str, Any]):
        if path.exists():
            raise MessageError(f"{path} exists already; remove it, or write to another file")
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        self.done: dict[int, str] = {}
        self._keys = [_key(request, settings) for request in requests]
        self._file = self._open()
        self._find_done(requests)

    def _find_done(self, requests: Sequence[BatchRequest]) -> None:
        # Equal requests share a key; each result of an earlier run is used for one of them.
        waiting: dict[str, list[int]] = {}
        for index, key in reversed(list(enumerate(self._keys))):
            waiting.setdefault(key, []).append(index)
        for line in self._partial_lines():
            match _json(line):  # a killed run may leave half a line
                case {"key": str(key), "result": {"id": _} as result} if _is_answer(result):
                    if waiting.get(key):
                        index = waiting[key].pop()
                        self.done[index] = _line({**result, **_names(requests[index])})

    def _partial_lines(self) -> list[str]:
        try:
            return text_lines(self.partial.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return []

    def _open(self) -> TextIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.partial.open("a", encoding="utf-8")
        except OSError as error:
            raise MessageError(f"{self.partial} cannot be written: {error.strerror}") from error
        # Locked until this process ends or closes the file. A run that held the lock before may have
        # finished meanwhile: then the results exist, and this partial file was deleted or is a new one.
        if not lock_file(file.fileno(), wait=False) or self.path.exists() or not self.partial.exists():
            file.close()
            raise MessageError(
                f"another run is writing to {self.path}; wait for it, or write to another file"
            )
        if file.tell():
            file.write("\n")  # ends a line that was cut off; empty lines are skipped
        return file

    def add(self, index: int, line: str) -> None:
        """Write the result of request `index`."""
        self.done[index] = line
        try:
            self._file.write(f'{{"key": "{self._keys[index]}", "result": {line}}}\n')
            self._file.flush()
        except OSError as error:
            raise MessageError(f"{self.partial} cannot be written: {error.strerror}") from error

    def finish(self) -> None:
        """Write all results to the file and delete the partial one."""
        content = "".join(self.done[index] + "\n" for index in range(len(self._keys)))
        try:
            write_atomically(self.path, content, mode=0o644)
        except OSError as error:
            raise MessageError(f"{self.path} cannot be written: {error.strerror}") from error
        self._file.close()
        self.partial.unlink()


def _key(request: BatchRequest, settings: Mapping[str, Any]) -> str:
    """A hash of everything the result depends on. The id is not part of it."""
    parts = [request.prompt, request.messages, request.sampling, request.thinking, request.thinking_budget]
    if request.schema is not None or request.continue_final_message:
        parts.append(request.schema)
    if request.continue_final_message:
        parts.append("continued")
    text = json.dumps([parts, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class ResultStream:
    """Results on a stream in the order of the requests, each written once all before it are."""

    def __init__(self, file: TextIO):
        self.done: dict[int, str] = {}
        self._file, self._next = file, 0

    def add(self, index: int, line: str) -> None:
        """Write the result of request `index`, once its turn has come."""
        self.done[index] = line
        while self._next in self.done:
            write_json(self.done[self._next], self._file)
            self._next += 1

    def finish(self) -> None:
        """Nothing is left to write."""
