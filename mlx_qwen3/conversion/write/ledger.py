"""Shards finished by a conversion that was killed are kept, if their bytes are what they were."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlx_qwen3.conversion.checksums import sha256
from mlx_qwen3.conversion.planning import Plan, Step
from mlx_qwen3.conversion.verification.compare import TensorCheck
from mlx_qwen3.files import write_atomically

LEDGER = "finished"
# Raised when the same plan comes to other bytes than before.
FORMAT = 1


class Ledger:
    """What is finished in a folder being filled, for one plan only: hashes and what checks found."""

    def __init__(self, folder: Path, plan: Plan):
        """Read the ledger in `folder`, where there is one, and check the files it lists."""
        self._folder = folder
        self._plan = fingerprint(plan)
        hashes, checks = self._read()
        self._hashes = {name: digest for name, digest in hashes.items() if self._holds(name, digest)}
        self._checks = {name: found for name, found in checks.items() if name in self._hashes}

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    @property
    def hashes(self) -> Mapping[str, str]:
        """sha256 of every finished file, by name."""
        return self._hashes

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
        self._hashes[name] = sha256(self._folder / name)
        self._write()

    def checks(self, name: str) -> list[TensorCheck]:
        """What comparing file `name` with its source found; nothing if that was not done."""
        return self._checks.get(name, [])

    def add_checks(self, name: str, checks: Sequence[TensorCheck]) -> None:
        """File `name` was compared with its source. Raises OSError."""
        self._checks[name] = list(checks)
        self._write()

    def close(self) -> None:
        """All is done: the ledger is not part of the result."""
        (self._folder / LEDGER).unlink()

    def _holds(self, name: str, digest: str) -> bool:
        path = self._folder / name
        return name == path.name and path.is_file() and not path.is_symlink() and sha256(path) == digest

    def _read(self) -> tuple[dict[str, str], dict[str, list[TensorCheck]]]:
        """The entries for this plan; none if there is no ledger, or it is of another conversion."""
        try:
            content = json.loads((self._folder / LEDGER).read_text(encoding="utf-8"))
            if content["plan"] != self._plan:
                return {}, {}
            hashes = {str(name): str(digest) for name, digest in content["hashes"].items()}
            return hashes, {
                name: [TensorCheck(**one) for one in found] for name, found in content["checks"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}, {}

    def _write(self) -> None:
        content: dict[str, Any] = {"plan": self._plan, "hashes": self._hashes}
        content["checks"] = {
            name: [check.to_dict() for check in found] for name, found in self._checks.items()
        }
        write_atomically(self._folder / LEDGER, json.dumps(content), mode=0o644)


def fingerprint(plan: Plan) -> str:
    """A hash of all that decides the output's bytes: source files, steps, shards and versions."""
    versions = sorted({source.version for step in plan.steps for source in step.sources})
    shards = [[_described(step) for step in shard] for shard in plan.shards]
    text = plan.calibration.digest if plan.calibration else None
    content = json.dumps([FORMAT, version("mlx"), versions, shards, text])
    return hashlib.sha256(content.encode()).hexdigest()


def _described(step: Step) -> list[object]:
    sources = [source.described for source in step.sources]
    outputs = [(output.name, output.shape, str(output.dtype)) for output in step.outputs]
    how = step.quantization.mlx_arguments() if step.quantization else None
    return [step.name, sources, str(step.dtype), how, step.searched, outputs]
