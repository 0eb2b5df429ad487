"""Opens the source of a conversion: a folder, a hub repository, or a GGUF file."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from mlx_qwen3.checkpoint.hub import download, download_gguf
from mlx_qwen3.checkpoint.hub_address import GGUF_ON_HUB, from_address
from mlx_qwen3.checkpoint.locate import locate, with_folder_hint
from mlx_qwen3.checkpoint.packed.matrix import PartReader
from mlx_qwen3.checkpoint.packed.open import find_packed
from mlx_qwen3.checkpoint.packed.stored_rows import read_stored_rows
from mlx_qwen3.checkpoint.packed.told_by_shapes import config_told_by_shapes
from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.checkpoint.tied_head import config_with_own_head
from mlx_qwen3.checkpoint.transfer.transfer import OnDownload
from mlx_qwen3.checkpoint.validation import build_model, check_counts, validate
from mlx_qwen3.conversion.source.gguf_model import open_gguf
from mlx_qwen3.conversion.source.hub import Downloads, HubTensor, remote_tensors
from mlx_qwen3.conversion.source.original import SourceCheckpoint
from mlx_qwen3.conversion.source.packed import PackedTensor
from mlx_qwen3.conversion.source.tensors import SourceTensor, source_tensors
from mlx_qwen3.errors import ConversionError, ModelNotFoundError
from mlx_qwen3.model.config import ModelConfig, read_json

CONFIG = "config.json"
COPIED_SUFFIXES = (".json", ".jinja", ".txt")  # tokenizer, chat template, generation settings, vocabulary
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md")


def open_source(
    source: str | Path, on_download: OnDownload | None = None, download_folder: Path | None = None
) -> SourceCheckpoint:
    """The checkpoint named `source`: a folder, hub id, short name, or GGUF file on this machine or the hub.

    Reads headers only. Weights on the hub are downloaded when they are first read, a GGUF file at once.
    download_folder: where they go, to be removed file by file after use; None is the hub's cache.
    Raises CheckpointError, ConfigError, and for GGUF TokenizerError and ConversionError.
    """
    if isinstance(source, str):
        source = from_address(source)
    if str(source).endswith(".gguf"):
        return open_gguf(_gguf_path(str(source), on_download, download_folder))
    place = locate(source)
    if isinstance(place, Path):
        return open_folder(place)
    try:
        return open_repository(place, on_download, download_folder)
    except ModelNotFoundError as error:
        raise with_folder_hint(error, source) from error


def _gguf_path(source: str, on_download: OnDownload | None, download_folder: Path | None) -> Path:
    """The GGUF file `source`, downloaded if it is `org/name/file.gguf` and no such file is here."""
    path = Path(source).expanduser()
    on_hub = GGUF_ON_HUB.fullmatch(source)
    if on_hub is None or path.exists():
        return path
    try:
        repository = f"{on_hub[1]}@{on_hub[2]}" if on_hub[2] else on_hub[1]
        return download_gguf(repository, on_hub[3], download_folder, on_download)
    except ModelNotFoundError as error:  # the name may be a mistyped local path
        raise ModelNotFoundError(f"no file {source} here; {error}") from error


def open_repository(
    repository: str, on_download: OnDownload | None = None, download_folder: Path | None = None
) -> SourceCheckpoint:
    """The checkpoint in a hub repository. Raises CheckpointError, ConfigError, ModelNotFoundError."""
    folder = download(repository, weights=False)
    config = ModelConfig.from_file(folder / CONFIG)
    if config.quantization is not None:  # the parts of one matrix may be in several files
        return open_folder(download(repository, on_download))
    downloads = Downloads(repository, folder.name, download_folder, on_download)
    stored = remote_tensors(downloads, folder)
    is_quantized = config.packing is None and any(name.endswith(".scales") for name in stored)
    if is_quantized or (config.tie_word_embeddings and "lm_head.weight" in stored):  # compared on the disk
        downloads.close()
        return open_folder(download(repository, on_download))
    config = config_with_own_head(config, stored)
    check_counts(Path(repository), config, stored)
    packed: dict[str, SourceTensor] = {}
    if config.packing is not None:
        found = find_packed(Path(repository), config, stored)
        reader, commit = PartReader(downloads.read), f"{repository} {folder.name}"
        packed = {name: PackedTensor(matrix, reader, commit) for name, matrix in found.matrices.items()}
        stored = found.unpacked
    validate(Path(repository), build_model(config, stored), stored)
    plain = {name: HubTensor(tensor, downloads) for name, tensor in stored.items()}
    return SourceCheckpoint(
        path=folder,
        raw_config=read_json(folder / CONFIG),
        config=config,
        tensors={**plain, **packed},
        write_files=partial(_copy_files, copied_files(folder)),
        downloads=downloads,
    )


def open_folder(folder: Path) -> SourceCheckpoint:
    """The checkpoint in `folder`. Raises CheckpointError, ConfigError, ConversionError."""
    config = ModelConfig.from_file(folder / CONFIG)
    stored = stored_tensors(folder)
    check_counts(folder, config, stored)
    config = config_told_by_shapes(config, stored)
    packed: dict[str, SourceTensor] = {}
    if config.packing is not None:
        found, reader = find_packed(folder, config, stored), PartReader(read_stored_rows)
        packed = {name: PackedTensor(matrix, reader) for name, matrix in found.matrices.items()}
        stored = found.unpacked
    config = config_with_own_head(config, stored)
    validate(folder, build_model(config, stored), stored)
    return SourceCheckpoint(
        path=folder,
        raw_config=read_json(folder / CONFIG),
        config=config,
        tensors={**source_tensors(stored, config.quantization), **packed},
        write_files=partial(_copy_files, copied_files(folder)),
    )


def copied_files(folder: Path) -> list[Path]:
    """The files that are neither weights nor code; config.json and the index are written anew.

    Raises ConversionError for a link out of the folder: the copy may be published, and what the link leads
    to is perhaps not meant to be.
    """
    files = []
    for file in sorted(folder.iterdir()):
        is_wanted = file.suffix in COPIED_SUFFIXES or file.name in LICENSES
        is_written = file.name == CONFIG or file.name.endswith(".index.json")
        if not file.is_file() or not is_wanted or is_written or file.name.startswith("."):
            continue
        if not is_inside(file, folder):
            raise ConversionError(
                f"{file} is a link to {file.resolve()}, outside the checkpoint's folder; replace it by a "
                "copy, or remove it"
            )
        files.append(file)
    return files


def _copy_files(files: list[Path], folder: Path) -> None:
    for file in files:
        shutil.copyfile(file, folder / file.name)


def is_inside(file: Path, folder: Path) -> bool:
    """Whether `file` is in `folder` once its links are followed; files in the hub's cache are links too."""
    folder = folder.resolve()
    places = [folder, folder.parents[1] / "blobs"] if folder.parent.name == "snapshots" else [folder]
    return any(place in file.resolve().parents for place in places)
