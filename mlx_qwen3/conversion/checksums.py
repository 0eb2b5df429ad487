"""SHA256SUMS: the hashes of the files of a conversion, in the format that `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.files import text_lines

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
NOT_LISTED = ("README.md", "generation_config.json", SUMS)  # users edit the first two


def write_sums(folder: Path, known: Mapping[str, str], leave_out: tuple[str, ...] = ()) -> None:
    """List the hashes of the files in `folder`. known: hashes computed before, by file name."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    names = [name for name in names if name not in (*NOT_LISTED, *leave_out)]
    lines = [f"{known.get(name) or sha256(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_bytes("".join(lines).encode("utf-8", "surrogateescape"))


def changed_files(folder: Path) -> dict[str, str] | None:
    """What is wrong with each listed file that is missing or changed; None without a SHA256SUMS.

    Raises CheckpointError if SHA256SUMS itself cannot be read.
    """
    try:
        text = (folder / SUMS).read_bytes().decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{folder / SUMS} cannot be read: {error}") from error
    matches = [LINE.fullmatch(line) for line in text_lines(text) if line]
    if not all(match and match[2] == Path(match[2]).name for match in matches):
        raise CheckpointError(f"{folder / SUMS} is not a list of checksums; remove it, or convert again")
    faults = {match[2]: _fault(folder / match[2], match[1]) for match in matches if match}
    return {name: fault for name, fault in faults.items() if fault}


def _fault(file: Path, digest: str) -> str | None:
    if not file.is_file():
        return "is missing"
    return None if sha256(file) == digest else "has changed since it was written"


def sha256(file: Path) -> str:
    """The hash of a file's bytes. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
