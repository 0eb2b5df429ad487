"""Downloads a checkpoint from the hub, or finds it in the hub's cache; nothing pickled is fetched."""

from __future__ import annotations

import fnmatch
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from mlx_qwen3.checkpoint.safetensors_files import StoredTensor, few
from mlx_qwen3.errors import ModelNotFoundError, one_line

if TYPE_CHECKING:
    from mlx_qwen3.checkpoint.locate import OnDownload

# The library logs every broken connection; what comes of it is said in our own errors, once.
logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)

# Configs, templates, vocabularies and licences, and weights; what lies in subfolders is other formats.
BESIDES = ["*.json", "*.jinja", "*.txt", "LICENSE*"]
WANTED = [*BESIDES, "*.safetensors"]
UNWANTED = ["*/*"]


def download(repository: str, on_download: OnDownload | None = None, weights: bool = True) -> Path:
    """The folder of hub repository `repository` (`org/name`), complete, or all of it but the weights.

    What is already in the cache is not fetched again and a broken download goes on where it stopped;
    without network (or with HF_HUB_OFFLINE=1) a complete cache is enough. Raises ModelNotFoundError.
    """
    try:
        folder = snapshot_download(
            repository,
            allow_patterns=WANTED if weights else BESIDES,
            ignore_patterns=UNWANTED,
            tqdm_class=_reporter(on_download),
        )
    except Exception as error:
        raise ModelNotFoundError(_reason(repository, error)) from error
    is_ours = any(any(Path(folder).glob(name)) for name in ("*.safetensors", "*.safetensors.index.json"))
    if not is_ours and (names := gguf_names(repository, without="*.safetensors")):
        raise ModelNotFoundError(
            f"{repository} holds GGUF files, which have to be converted: mlx-qwen3 convert "
            f"{repository}/{names[0]} (there are {few(names)})"
        )
    return Path(folder)


def download_gguf(
    repository: str, name: str, folder: Path | None = None, on_download: OnDownload | None = None
) -> Path:
    """A GGUF file of a repository, with its other parts if it is one of several; in the cache or in `folder`.

    Raises ModelNotFoundError, naming the files there are.
    """
    parts = re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-?????-of-\1.gguf", name)
    try:
        found = snapshot_download(
            repository, allow_patterns=[parts], local_dir=folder, tqdm_class=_reporter(on_download)
        )
    except Exception as error:
        raise ModelNotFoundError(_reason(repository, error)) from error
    path = Path(found) / name
    if not path.is_file():
        names = few(gguf_names(repository)) or "none"
        raise ModelNotFoundError(f"no file {name} in {repository} on the hub; its GGUF files: {names}")
    return path


def gguf_names(repository: str, without: str | None = None) -> list[str]:
    """The GGUF files of a repository; none where the hub cannot be asked, or has files like `without`."""
    try:
        names = HfApi().list_repo_files(repository)
    except Exception:  # noqa: BLE001  # they are named to help, whatever went wrong was said
        return []
    if without and fnmatch.filter(names, without):
        return []
    return sorted(name for name in names if name.endswith(".gguf"))


def downloaded(repository: str) -> Path | None:
    """The folder of a hub repository that is in the cache already, None if it is not. No network."""
    try:
        return Path(
            snapshot_download(
                repository, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, IncompleteSnapshotError):
        return None


def cached_file(repository: str, name: str, commit: str) -> Path | None:
    """A file that was downloaded before, or None."""
    found = try_to_load_from_cache(repository, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def remote_header(repository: str, name: str, commit: str) -> list[StoredTensor]:
    """The tensors of a safetensors file that stays on the hub; offsets are behind its header.

    Raises ModelNotFoundError.
    """
    try:
        header = HfApi().parse_safetensors_file_metadata(repository, name, revision=commit)
    except Exception as error:
        raise ModelNotFoundError(_reason(repository, error)) from error
    file = Path(repository) / name
    return [
        StoredTensor(
            tensor, file, tuple(info.shape), info.dtype, info.data_offsets[0], _length(info.data_offsets)
        )
        for tensor, info in header.tensors.items()
    ]


def _length(offsets: tuple[int, int]) -> int:
    return offsets[1] - offsets[0]


def download_file(
    repository: str, name: str, commit: str, folder: Path | None, on_download: OnDownload | None
) -> Path:
    """One file, in the hub's cache, or in `folder`. Raises ModelNotFoundError."""
    try:
        path = hf_hub_download(
            repository, name, revision=commit, local_dir=folder, tqdm_class=_reporter(on_download)
        )
    except Exception as error:
        raise ModelNotFoundError(_reason(repository, error)) from error
    return Path(path)


def _reason(repository: str, error: Exception) -> str:
    """`error` as one line that says what to do."""
    if isinstance(error, GatedRepoError):
        return f"{repository} is gated: accept its terms on its page, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return f"no repository {repository} on the hub: check its name; if it is private, `hf auth login`"
    if isinstance(error, IncompleteSnapshotError):
        return f"{repository} is only partly downloaded and the hub cannot be reached: connect and try again"
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return (
            f"{repository} is not downloaded and the hub cannot be reached: "
            "connect (and unset HF_HUB_OFFLINE), or name a local folder"
        )
    detail = one_line(error, limit=200)
    return f"downloading {repository} failed: {detail}; run the same command again to go on with it"


def _reporter(on_download: OnDownload | None) -> type[Any]:
    """A progress bar class for huggingface_hub that shows nothing and calls `on_download`."""

    class Reporter(tqdm):
        def __init__(self, *args: Any, **options: Any):
            self._is_bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.total = options.get("total") or 0
            self.n = options.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            # A disabled bar does not count, so this one does. Several bars count bytes; they differ
            # where some of them came from the cache.
            self.n += n or 0
            if on_download is not None and self._is_bytes:
                on_download(int(self.n), max(int(self.total or 0), int(self.n)))

    return Reporter
