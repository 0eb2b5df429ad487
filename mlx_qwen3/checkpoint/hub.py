"""Downloads checkpoints from the hub into its cache. Pickled weights are never fetched.

huggingface_hub is imported inside functions: it takes half a second, and a local folder does not need it.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_qwen3.checkpoint.hub_address import split_revision
from mlx_qwen3.checkpoint.safetensors_files import few, visible_weight_files
from mlx_qwen3.checkpoint.tensor_names import StoredTensor, published_tensors
from mlx_qwen3.checkpoint.transfer.resumable import fetch_weights
from mlx_qwen3.checkpoint.transfer.transfer import Cancel, OnDownload, Transfer, progress_class
from mlx_qwen3.errors import ModelNotFoundError, Qwen3Error, one_line

# Configs, templates, vocabularies and licences.
TEXT_FILES = ["*.json", "*.jinja", "*.txt", "LICENSE*"]
CHECKPOINT_FILES = [*TEXT_FILES, "*.safetensors"]
# Subfolders hold the model in other formats.
SUBFOLDERS = ["*/*"]


def download(
    repository: str,
    on_download: OnDownload | None = None,
    weights: bool = True,
    files: Iterable[str] | None = None,
    *,
    cancel: Cancel | None = None,
    cache: Path | None = None,
) -> Path:
    """The local folder of hub repository `repository` (`org/name`), downloaded where it is not cached.

    A download that was stopped goes on where it stopped, within a file too. Without network (or with
    HF_HUB_OFFLINE=1) a complete cache is enough.

    Args:
        repository: The repository's id, perhaps with `@` and a revision.
        on_download: Told how many bytes have arrived, on this thread.
        weights: Whether to download the weights too.
        files: Of the weights only these files; None is all.
        cancel: Ends the download when it is set.
        cache: The cache's folder; None is the hub's own.

    Raises:
        ModelNotFoundError: There is no such repository, it is GGUF only, or the hub cannot be reached.
        CheckpointError: The disk is too small.
        LoadCancelledError: `cancel` was set.
    """
    wanted = CHECKPOINT_FILES if weights else TEXT_FILES
    if files is not None:
        wanted = [*TEXT_FILES, *files]
    transfer = Transfer(on_download, cancel)
    with _hub_errors(repository):
        folder = transfer.run(lambda: _snapshot(repository, wanted, SUBFOLDERS, cache, transfer))
    is_ours = bool(visible_weight_files(Path(folder))) or any(Path(folder).glob("*.safetensors.index.json"))
    if not is_ours and (names := _gguf_names(repository, without="*.safetensors")):
        raise ModelNotFoundError(
            f"{repository} holds GGUF files, which must be converted first: mlx-qwen3 convert "
            f"{repository}/{names[0]} (there are {few(names)})"
        )
    return folder


def _snapshot(
    repository: str, wanted: list[str], ignored: list[str], cache: Path | None, transfer: Transfer
) -> Path:
    """The folder of a repository with the files that match `wanted`."""
    from huggingface_hub import constants, snapshot_download

    repo_id, revision = split_revision(repository)

    def snapshot(patterns: list[str]) -> Path:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=ignored,
            cache_dir=cache,
            tqdm_class=progress_class(transfer),
        )
        return Path(folder)

    if wanted != TEXT_FILES and _cached(repository, wanted, ignored, cache) is None:
        # Weights go on where they stopped. The small files are first, so that the repository is in the cache.
        commit = snapshot([name for name in wanted if name in TEXT_FILES] or TEXT_FILES).name
        if not constants.HF_HUB_OFFLINE:
            place = Path(cache or constants.HF_HUB_CACHE)
            fetch_weights(repo_id, commit, wanted, ignored, place, transfer)
    return snapshot(wanted)


def download_gguf(
    repository: str, name: str, folder: Path | None = None, on_download: OnDownload | None = None
) -> Path:
    """A GGUF file of a repository with its other parts, in the hub's cache or in `folder`.

    Raises ModelNotFoundError, which names the GGUF files the repository has.
    """
    parts = re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-?????-of-\1.gguf", name)
    transfer = Transfer(on_download)

    def to_folder() -> Path:
        from huggingface_hub import snapshot_download

        repo_id, revision = split_revision(repository)
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=[parts],
                local_dir=folder,
                tqdm_class=progress_class(transfer),
            )
        )

    with _hub_errors(repository):
        snapshot = transfer.run(
            to_folder if folder else lambda: _snapshot(repository, [parts], [], None, transfer)
        )
    path = snapshot / name
    if not path.is_file():
        names = few(_gguf_names(repository)) or "none"
        raise ModelNotFoundError(f"no file {name} in {repository} on the hub; its GGUF files: {names}")
    return path


def _gguf_names(repository: str, without: str | None = None) -> list[str]:
    """The GGUF files of a repository; none if it has a file like `without`, or the hub does not answer."""
    try:
        with _hub_errors(repository):
            from huggingface_hub import HfApi

            repo_id, revision = split_revision(repository)
            names = HfApi().list_repo_files(repo_id, revision=revision)
    except ModelNotFoundError:  # the names only complete a message
        return []
    if without and fnmatch.filter(names, without):
        return []
    return sorted(name for name in names if name.endswith(".gguf"))


def downloaded(repository: str, cache: Path | None = None) -> Path | None:
    """The folder of a repository if it is completely in the hub's cache, else None. Uses no network."""
    return _cached(repository, CHECKPOINT_FILES, SUBFOLDERS, cache)


def _cached(repository: str, wanted: list[str], ignored: list[str], cache: Path | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        repo_id, revision = split_revision(repository)
        folder = snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=wanted,
            ignore_patterns=ignored,
            cache_dir=cache,
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, IncompleteSnapshotError):
        return None
    return Path(folder)


def cached_file(repository: str, name: str, commit: str) -> Path | None:
    """A file of a repository's `commit` in the hub's cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(split_revision(repository)[0], name, revision=commit)
    return Path(path) if isinstance(path, str) else None


def download_file(
    repository: str,
    name: str,
    commit: str,
    folder: Path | None,
    on_download: OnDownload | None,
    cancel: Cancel | None = None,
) -> Path:
    """One file, in the hub's cache or in `folder`. Raises ModelNotFoundError, LoadCancelledError."""
    transfer = Transfer(on_download, cancel)

    def fetch() -> str:
        from huggingface_hub import constants, hf_hub_download

        repo_id, _ = split_revision(repository)
        if folder is None and not constants.HF_HUB_OFFLINE:
            fetch_weights(repo_id, commit, [name], [], Path(constants.HF_HUB_CACHE), transfer)
        options: Any = {"local_dir": folder, "tqdm_class": progress_class(transfer)}
        return str(hf_hub_download(repo_id, name, revision=commit, **options))

    with _hub_errors(repository):
        return Path(transfer.run(fetch))


def remote_header(repository: str, name: str, commit: str) -> list[StoredTensor]:
    """The tensors of a safetensors file that stays on the hub. Their offsets count from the header's end.

    Raises ModelNotFoundError.
    """
    with _hub_errors(repository):
        from huggingface_hub import HfApi

        header = HfApi().parse_safetensors_file_metadata(split_revision(repository)[0], name, revision=commit)
    tensors = []
    for tensor, info in header.tensors.items():
        start, end = info.data_offsets
        tensors.append(
            StoredTensor(tensor, Path(repository) / name, tuple(info.shape), info.dtype, start, end - start)
        )
    return published_tensors(tensors)


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turns every failure inside into a ModelNotFoundError of one line, and huggingface_hub's log off.

    It logs each broken connection, which the error reports once.
    """
    import huggingface_hub.utils  # noqa: F401  # sets its log level, so before ours

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    try:
        yield
    except Qwen3Error:
        raise
    except Exception as error:
        raise ModelNotFoundError(_reason(repository, error)) from error


def _reason(repository: str, error: Exception) -> str:
    """`error` in one line that says what to do."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return f"{repository} is gated: accept its terms on its page, then log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return f"no repository {repository} on the hub: check its name; if it is private, `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository.replace('@', ' has no revision ')} on the hub: check its name"
    if isinstance(error, errors.IncompleteSnapshotError):
        return f"{repository} is only partly downloaded and the hub cannot be reached: connect and try again"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        unset = " and unset HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else ""
        return (
            f"{repository} is not downloaded and the hub cannot be reached: "
            f"connect{unset}, or name a local folder"
        )
    detail = one_line(error, limit=200)
    return f"downloading {repository} failed: {detail}; run the same command again to resume"
