"""Reads the text of a calibration, a file of plain text or of conversations, as windows of tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.conversion.source.original import SourceCheckpoint
from mlx_qwen3.errors import ConversionError, Qwen3Error
from mlx_qwen3.files import text_lines
from mlx_qwen3.tokenizer import Tokenizer

WINDOW = 512  # tokens of one sequence
MAX_WINDOWS = 64
MIN_TOKENS = 256  # with fewer, the measured activations say little about the model


@dataclass(frozen=True, eq=False)
class Calibration:
    """The tokens of a calibration text."""

    windows: npt.NDArray[np.int32]  # ids, (windows, tokens)

    @property
    def digest(self) -> str:
        """A hash of the tokens."""
        return hashlib.sha256(self.windows.tobytes()).hexdigest()


def read_calibration(path: str | Path, source: SourceCheckpoint) -> Calibration:
    """The calibration text in the file `path`, in tokens of the checkpoint `source`.

    The file is plain text, or .jsonl with {"messages": [...]} or {"text": "..."} on each line. Of a long
    file, evenly spread windows are used. Raises ConversionError, which names the file and the line.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConversionError(f"{path} could not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path} is not text in UTF-8: {error.reason}") from error
    tokenizer = _load_tokenizer(source)
    if path.suffix == ".jsonl":
        ids = _encode_lines(text, path, tokenizer)
    else:
        ids = tokenizer.encode(text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(ids) < MIN_TOKENS:
        raise ConversionError(f"{path} holds {len(ids)} tokens; calibration needs {MIN_TOKENS} or more")
    return Calibration(_windows(np.array(ids, np.int32)))


def _load_tokenizer(source: SourceCheckpoint) -> Tokenizer:
    with TemporaryDirectory() as folder:  # a GGUF file has no folder to load it from
        source.write_files(Path(folder))
        tokenizer = load_tokenizer(folder)
        if tokenizer.chat_template is not None:  # compiled on first use, so use it while the folder exists
            _ = tokenizer.template
        return tokenizer


def _encode_lines(text: str, path: Path, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = []
    for number, line in enumerate(text_lines(text), 1):
        if line.strip():
            try:
                ids += _encode_line(json.loads(line), tokenizer)
            except (ValueError, TypeError, KeyError, RecursionError, Qwen3Error) as error:
                raise ConversionError(f"{path}, line {number}: {error}; see docs/conversion.md") from error
    return ids


def _encode_line(entry: Any, tokenizer: Tokenizer) -> list[int]:
    if isinstance(entry, dict) and isinstance(entry.get("messages"), list):
        return tokenizer.apply_chat_template(
            entry["messages"], tools=entry.get("tools"), add_generation_prompt=False
        )
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        return tokenizer.encode(entry["text"])
    raise ValueError('a line must be {"messages": [...]} or {"text": "..."}')


def _windows(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """`ids` (L,) -> at most MAX_WINDOWS windows, spread over the text, (windows, min(WINDOW, L))."""
    window = min(WINDOW, len(ids))
    count = len(ids) // window
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_WINDOWS)).astype(int))
    return np.stack([ids[index * window : (index + 1) * window] for index in chosen])


def batches(calibration: Calibration, size: int = 8) -> Iterator[npt.NDArray[np.int32]]:
    """The windows in batches of `size`."""
    for start in range(0, len(calibration.windows), size):
        yield calibration.windows[start : start + size]
