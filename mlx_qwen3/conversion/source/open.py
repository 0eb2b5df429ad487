"""What is converted: a checkpoint's config, its tensors, and the files that go along with them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.checkpoint.hub import OnDownload, download, download_gguf
from mlx_qwen3.checkpoint.locate import HUB_ID, locate, with_folder_hint
from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.checkpoint.validation import build_model, validate
from mlx_qwen3.conversion.source.tensors import Source, sources_of
from mlx_qwen3.errors import ModelNotFoundError
from mlx_qwen3.model.config import ModelConfig, read_json

if TYPE_CHECKING:
    from mlx_qwen3.conversion.source.hub import Downloads

CONFIG = "config.json"
GGUF_ON_HUB = re.compile(rf"({HUB_ID.pattern})/(.+\.gguf)")
CARRIED = (".json", ".jinja", ".txt")  # tokenizer, chat template, generation settings, vocabulary
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md")


@dataclass(frozen=True)
class Original:
    """A checkpoint to be converted, checked whole.

    path: its folder or file. raw_config: the content of config.json. sources: tensors by the names Qwen
    publishes them under, experts one by one or stacked. write_files: writes tokenizer, template and
    whatever else is carried over into a folder. downloads: of files that are not here yet.
    """

    path: Path
    raw_config: Mapping[str, Any]
    config: ModelConfig
    sources: Mapping[str, Source]
    write_files: Callable[[Path], None]
    downloads: Downloads | None = None

    def close(self) -> None:
        """Break off downloads, if there are any."""
        if self.downloads is not None:
            self.downloads.close()


def open_original(
    source: str | Path, on_download: OnDownload | None = None, disposable: Path | None = None
) -> Original:
    """The checkpoint called `source`: a folder, a hub id, a short name or a GGUF file, here or on the hub.

    Reads headers only; weights of a hub repository are downloaded when they are read, a GGUF file whole and
    at once. disposable: a folder for them, from which they are removed when they are done with; None is
    the hub's cache.
    Raises CheckpointError, ConfigError, and for GGUF TokenizerError, ConversionError.
    """
    if str(source).endswith(".gguf"):
        from mlx_qwen3.conversion.source.gguf_model import (
            open_gguf,  # brings the package, which others do not need
        )

        return open_gguf(_gguf_path(str(source), on_download, disposable))
    place = locate(source)
    if isinstance(place, Path):
        return open_folder(place)
    try:
        return open_repository(place, on_download, disposable)
    except ModelNotFoundError as error:
        raise with_folder_hint(error, source) from error


def _gguf_path(source: str, on_download: OnDownload | None, disposable: Path | None) -> Path:
    """Where the GGUF file `source` is: here, or `org/name/file.gguf` on the hub."""
    path = Path(source).expanduser()
    on_hub = GGUF_ON_HUB.fullmatch(source)
    if on_hub is None or path.exists():
        return path
    try:
        return download_gguf(on_hub[1], on_hub[2], disposable, on_download)
    except ModelNotFoundError as error:  # it may as well have been a file, with a typo
        raise ModelNotFoundError(f"no file {source} here; {error}") from error


def open_repository(
    repository: str, on_download: OnDownload | None = None, disposable: Path | None = None
) -> Original:
    """The checkpoint in a hub repository. Raises CheckpointError, ConfigError, ModelNotFoundError."""
    from mlx_qwen3.conversion.source.hub import Downloads, HubTensor, remote_tensors

    folder = download(repository, weights=False)
    config = ModelConfig.from_file(folder / CONFIG)
    if config.quantization is not None:  # parts of a matrix may be in several files
        return open_folder(download(repository, on_download))
    downloads = Downloads(repository, folder.name, disposable, on_download)
    stored = remote_tensors(downloads, folder)
    validate(Path(repository), build_model(config, stored), stored)
    return Original(
        path=folder,
        raw_config=read_json(folder / CONFIG),
        config=config,
        sources={name: HubTensor(tensor, downloads) for name, tensor in stored.items()},
        write_files=partial(_carry_over, folder),
        downloads=downloads,
    )


def open_folder(folder: Path) -> Original:
    """The checkpoint in `folder`. Raises CheckpointError, ConfigError."""
    config = ModelConfig.from_file(folder / CONFIG)
    stored = stored_tensors(folder)
    validate(folder, build_model(config, stored), stored)
    return Original(
        path=folder,
        raw_config=read_json(folder / CONFIG),
        config=config,
        sources=sources_of(stored, config.quantization),
        write_files=partial(_carry_over, folder),
    )


def _carry_over(source: Path, folder: Path) -> None:
    for file in sorted(source.iterdir()):
        is_wanted = file.suffix in CARRIED or file.name in LICENSES
        if file.is_file() and is_wanted and file.name != CONFIG and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
