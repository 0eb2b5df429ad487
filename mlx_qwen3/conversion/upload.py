"""Uploads a checkpoint to the hub: what `convert` wrote, and a card that says how to run it."""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_qwen3.checkpoint.hub_address import from_address
from mlx_qwen3.checkpoint.safetensors_files import few
from mlx_qwen3.conversion.checksums import SUMS, changed_files
from mlx_qwen3.conversion.source.open import CONFIG, copied_files, is_inside, open_folder
from mlx_qwen3.conversion.write.metadata import CARD, run_line
from mlx_qwen3.errors import ConversionError, one_line

MAX_CARD_BYTES = 2**20


@dataclass(frozen=True)
class UploadPlan:
    """What an upload sends.

    Attributes:
        folder: The checkpoint.
        repository: `org/name` on the hub.
        files: Name -> bytes of each file, the card left out.
        card: The text of its README.md.
    """

    folder: Path
    repository: str
    files: dict[str, int]
    card: str

    @property
    def total_size(self) -> int:
        return sum(self.files.values())


def plan_upload(folder: str | Path, repository: str) -> UploadPlan:
    """What `upload` would send. Checks the checkpoint and its checksums. Uses no network.

    Raises:
        ConversionError: The name is no repository's, a file has changed since it was written, or a link
            leads out of the folder.
        CheckpointError, ConfigError: The folder is not a checkpoint that loads.
    """
    folder, repository = Path(folder).expanduser(), from_address(str(repository))
    if not _is_name(repository):
        raise ConversionError(f"{repository!r} is not a repository's name; give one like your-name/my-model")
    source = open_folder(folder)
    if faults := changed_files(folder):
        name = next(iter(faults))
        raise ConversionError(f"{folder / name} {faults[name]}; convert again, or remove {SUMS}")
    weights = {tensor_file for tensor in source.tensors.values() for tensor_file in tensor.files}
    files = [*weights, *copied_files(folder), folder / CONFIG, *folder.glob("*.index.json")]
    if (folder / SUMS).is_file():
        files.append(folder / SUMS)
    for file in files:
        if not is_inside(file, folder):
            raise ConversionError(f"{file} is a link to {file.resolve()}, outside the checkpoint's folder")
    sizes = {file.name: file.stat().st_size for file in sorted(files)}
    return UploadPlan(folder, repository, sizes, _card(folder, repository))


def _is_name(repository: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError:
        return False
    return "/" in repository


def upload(plan: UploadPlan, *, private: bool = True) -> str:
    """Send the files of `plan` to the hub; returns the address of the repository.

    What has arrived before is not sent again, so a broken upload continues with the next call.

    Args:
        plan: From `plan_upload`.
        private: Whether a repository that is made now is private. One that exists stays as it is.

    Raises:
        ConversionError: The hub refuses it or cannot be reached; the message says what to do.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = str(api.create_repo(plan.repository, private=private, exist_ok=True))
        names = [re.sub(r"([*?\[])", r"[\1]", name) for name in plan.files]  # they are patterns
        message = "Upload with mlx_qwen3"
        api.upload_folder(
            repo_id=plan.repository, folder_path=plan.folder, allow_patterns=names, commit_message=message
        )
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / CARD).write_text(plan.card, encoding="utf-8")
            api.upload_file(
                path_or_fileobj=Path(temporary) / CARD,
                path_in_repo=CARD,
                repo_id=plan.repository,
                commit_message=message,
            )
    except Exception as error:
        raise ConversionError(_reason(plan.repository, error)) from error
    return url


def _reason(repository: str, error: Exception) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
        return (
            f"the hub does not let you write to {repository}: log in with `hf auth login`, with a token that "
            "may write, and use a name of your own or of your organization"
        )
    detail = one_line(error, limit=200)
    return f"uploading to {repository} failed: {detail}; run the same command again, it continues"


def _card(folder: Path, repository: str) -> str:
    """The card in the folder, or a short one; its command runs the model from the hub."""
    text = ""
    with suppress(OSError), (folder / CARD).open("rb") as file:
        text = file.read(MAX_CARD_BYTES).decode("utf-8", "replace")
    name = repository.rpartition("/")[2]
    if not text.strip():
        text = f"---\nlibrary_name: mlx\ntags:\n- mlx\n---\n\n# {name}\n"
    lines = [line for line in text.rstrip().split("\n") if not line.startswith(run_line(""))]
    return "\n".join([*lines, *([""] if lines[-1] else []), run_line(f"{repository}`"), ""])


def describe(plan: UploadPlan) -> str:
    """The plan in one line."""
    names = few(sorted(plan.files, key=lambda name: -plan.files[name]), 4)
    files = f"{len(plan.files) + 1} files, {plan.total_size:,} bytes ({names})"
    return f"{plan.folder} to {plan.repository}: {files}"
