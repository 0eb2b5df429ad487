"""The text a conversion is calibrated on: a file of plain text or of conversations, as windows of tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlx_qwen3.conversion.source.open import Original
from mlx_qwen3.errors import ConversionError, Qwen3Error

if TYPE_CHECKING:
    from mlx_qwen3.tokenizer import Tokenizer

WINDOW = 512  # tokens the model sees at once
MAX_WINDOWS = 64
FEWEST_TOKENS = 256  # less says nothing about a model


@dataclass(frozen=True, eq=False)
class Calibration:
    """Token ids (windows, tokens), and the name of the file they are from."""

    name: str
    windows: npt.NDArray[np.int32]

    @property
    def digest(self) -> str:
        """Tells one calibration from another."""
        return hashlib.sha256(self.windows.tobytes()).hexdigest()


def read_calibration(path: str | Path, original: Original) -> Calibration:
    """The calibration text in `path`, in the tokens of the checkpoint `original`.

    Plain text, or .jsonl with one object a line: {"messages": [...]} or {"text": ...}. Of a long file
    windows evenly spread are used. Raises ConversionError naming the file, and the line where there is one.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConversionError(f"{path} could not be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path} is not text in UTF-8: {error.reason}") from error
    tokenizer = _tokenizer(original)
    ids = tokenizer.encode(text) if path.suffix != ".jsonl" else _encode_lines(text, path, tokenizer)
    if len(ids) < FEWEST_TOKENS:
        raise ConversionError(f"{path} holds {len(ids)} tokens; calibration needs {FEWEST_TOKENS} or more")
    return Calibration(path.name, _windows(np.array(ids, np.int32)))


def _tokenizer(original: Original) -> Tokenizer:
    from mlx_qwen3.checkpoint.tokenizer import load_tokenizer

    with TemporaryDirectory() as folder:  # not every original is a folder
        original.write_files(Path(folder))
        tokenizer = load_tokenizer(folder)
        if tokenizer.chat_template is not None:  # read while the folder is there
            _ = tokenizer.template
        return tokenizer


def _encode_lines(text: str, path: Path, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                ids += _encode_line(json.loads(line), tokenizer)
            except (ValueError, TypeError, KeyError, Qwen3Error) as error:
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
    """Windows of WINDOW tokens, at most MAX_WINDOWS, spread over all of `ids`; a short text is one."""
    window = min(WINDOW, len(ids))
    count = len(ids) // window
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_WINDOWS)).astype(int))
    return np.stack([ids[index * window : (index + 1) * window] for index in chosen])


def batches(calibration: Calibration, size: int = 8) -> Iterator[npt.NDArray[np.int32]]:
    """The windows, `size` at a time."""
    for start in range(0, len(calibration.windows), size):
        yield calibration.windows[start : start + size]
