"""Records the weight files a conversion has finished, so that the next one keeps them after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_qwen3.backend.versions import installed_version
from mlx_qwen3.conversion.checksums import sha256
from mlx_qwen3.conversion.planning import ConversionPlan, ConversionStep
from mlx_qwen3.conversion.verification.compare import TensorCheck
from mlx_qwen3.files import write_atomically

LEDGER = "finished"
# To be raised when a new version of this package writes other bytes for the same plan.
FORMAT = 1


class Ledger:
    """The finished files of a folder, with their hashes and checks. It is valid for one plan only."""

    def __init__(self, folder: Path, plan: ConversionPlan):
        """Read the ledger in `folder`, if there is one, and check the hashes of the files it lists."""
        self._folder = folder
        self._plan = plan_digest(plan)
        hashes, checks = self._read()
        self._hashes = {name: digest for name, digest in hashes.items() if self._holds(name, digest)}
        self._checks = {name: checks[name] for name in checks if name in self._hashes}

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    @property
    def hashes(self) -> Mapping[str, str]:
        """sha256 of every finished file, by name."""
        return self._hashes

    def remove_other_files(self, keep: str) -> None:
        """Remove everything from the folder but finished files and the file `keep`. Raises OSError."""
        for entry in self._folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != keep and entry.name not in self._hashes:
                entry.unlink()
        self._write()

    def add(self, name: str) -> None:
        """Record that file `name` is complete and on the disk. Raises OSError."""
        self._hashes[name] = sha256(self._folder / name)
        self._write()

    def checks(self, name: str) -> list[TensorCheck]:
        """The checks of the tensors in file `name`; empty if they were not made."""
        return self._checks.get(name, [])

    def add_checks(self, name: str, checks: Sequence[TensorCheck]) -> None:
        """Record the checks of the tensors in file `name`. Raises OSError."""
        self._checks[name] = list(checks)
        self._write()

    def close(self) -> None:
        """Remove the ledger, which is not part of the result."""
        (self._folder / LEDGER).unlink()

    def _holds(self, name: str, digest: str) -> bool:
        path = self._folder / name
        return name == path.name and path.is_file() and not path.is_symlink() and sha256(path) == digest

    def _read(self) -> tuple[dict[str, str], dict[str, list[TensorCheck]]]:
        """Hashes and checks by file name; empty without a ledger of the same plan."""
        try:
            content = json.loads((self._folder / LEDGER).read_text(encoding="utf-8"))
            if content["plan"] != self._plan:
                return {}, {}
            hashes = {str(name): str(digest) for name, digest in content["hashes"].items()}
            return hashes, {
                name: [TensorCheck(**check) for check in checks] for name, checks in content["checks"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}, {}

    def _write(self) -> None:
        content: dict[str, Any] = {"plan": self._plan, "hashes": self._hashes}
        content["checks"] = {
            name: [asdict(check) for check in checks] for name, checks in self._checks.items()
        }
        write_atomically(self._folder / LEDGER, json.dumps(content), mode=0o644)


def plan_digest(plan: ConversionPlan) -> str:
    """A hash of all that decides the output's bytes: source files, steps, shards, text and versions."""
    versions = sorted({source.version for step in plan.steps for source in step.sources})
    shards = [[_step_identity(step) for step in shard] for shard in plan.shards]
    text = plan.calibration.digest if plan.calibration else None
    content = json.dumps([FORMAT, installed_version("mlx"), versions, shards, text])
    return hashlib.sha256(content.encode()).hexdigest()


def _step_identity(step: ConversionStep) -> list[object]:
    sources = [source.identity for source in step.sources]
    outputs = [(output.name, output.shape, str(output.dtype)) for output in step.outputs]
    settings = step.quantization.mlx_arguments() if step.quantization else None
    return [step.name, sources, str(step.dtype), settings, step.searched, step.repacked, outputs]
