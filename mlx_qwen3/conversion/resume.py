"""Shards finished by a conversion that was killed are kept, if their bytes are what they were."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

from mlx_qwen3.conversion.planning import Plan, Step
from mlx_qwen3.files import write_atomically

LEDGER = "finished"
# Raised when the same plan comes to other bytes than before.
FORMAT = 1


class Ledger:
    """What is finished in a folder being filled: file name -> sha256, for one plan only."""

    def __init__(self, folder: Path, plan: Plan):
        """Read the ledger in `folder`, where there is one, and check the files it lists."""
        self._folder = folder
        self._plan = fingerprint(plan)
        self._hashes = {name: digest for name, digest in self._read().items() if self._holds(name, digest)}

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    def clear_all_else(self, keep: str) -> None:
        """Remove whatever is in the folder but finished files and the one called `keep`."""
        for entry in self._folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != keep and entry.name not in self._hashes:
                entry.unlink()
        self._write()

    def add(self, name: str) -> None:
        """File `name` is whole, and on the disk. Raises OSError."""
        self._hashes[name] = _hash(self._folder / name)
        self._write()

    def close(self) -> None:
        """All is done: the ledger is not part of the result."""
        (self._folder / LEDGER).unlink()

    def _holds(self, name: str, digest: str) -> bool:
        path = self._folder / name
        return name == path.name and path.is_file() and not path.is_symlink() and _hash(path) == digest

    def _read(self) -> dict[str, str]:
        """The entries for this plan; none if there is no ledger, or it is of another conversion."""
        try:
            content = json.loads((self._folder / LEDGER).read_text(encoding="utf-8"))
            hashes = content["hashes"] if content["plan"] == self._plan else {}
            return {str(name): str(digest) for name, digest in hashes.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write(self) -> None:
        write_atomically(
            self._folder / LEDGER, json.dumps({"plan": self._plan, "hashes": self._hashes}), mode=0o644
        )


def fingerprint(plan: Plan) -> str:
    """A hash of all that decides the output's bytes: source files, steps, shards and versions."""
    versions = sorted({source.version for step in plan.steps for source in step.sources})
    shards = [[_described(step) for step in shard] for shard in plan.shards]
    content = json.dumps([FORMAT, version("mlx"), versions, shards])
    return hashlib.sha256(content.encode()).hexdigest()


def _described(step: Step) -> list[object]:
    sources = [source.described for source in step.sources]
    outputs = [(output.name, output.shape, str(output.dtype)) for output in step.outputs]
    how = step.quantization.settings() if step.quantization else None
    return [step.name, sources, str(step.dtype), how, step.searched, outputs]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
