"""SHA256SUMS: what a conversion wrote, in the form that `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from mlx_qwen3.errors import CheckpointError

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
# Files a person may well edit.
NOT_LISTED = ("README.md", "generation_config.json", SUMS)


def write_sums(folder: Path, known: Mapping[str, str], leave_out: tuple[str, ...] = ()) -> None:
    """List every file in `folder`. known: hashes that need not be computed again, by file name."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    names = [name for name in names if name not in (*NOT_LISTED, *leave_out)]
    lines = [f"{known.get(name) or sha256(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def changed_files(folder: Path) -> dict[str, str] | None:
    """What is wrong with files listed in SHA256SUMS, by name; None where there is no list.

    Raises CheckpointError where the list itself is broken.
    """
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / SUMS} cannot be read: {error}") from error
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    if not all(match and match[2] == Path(match[2]).name for match in matches):
        raise CheckpointError(f"{folder / SUMS} is not a list of checksums; remove it, or convert again")
    wrong = {match[2]: _wrong(folder / match[2], match[1]) for match in matches if match}
    return {name: what for name, what in wrong.items() if what}


def _wrong(file: Path, digest: str) -> str | None:
    if not file.is_file():
        return "is missing"
    return None if sha256(file) == digest else "has changed since it was written"


def sha256(file: Path) -> str:
    """The hash of a file's bytes. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
