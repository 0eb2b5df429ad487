"""Downloads of a checkpoint only what one rank needs."""

from __future__ import annotations

from pathlib import Path

from mlx_qwen3.checkpoint.hub import download
from mlx_qwen3.checkpoint.locate import locate, resolve
from mlx_qwen3.checkpoint.safetensors_files import read_index
from mlx_qwen3.checkpoint.shares.load_share import share_files
from mlx_qwen3.checkpoint.transfer.transfer import OnDownload
from mlx_qwen3.distributed.plan import PIPELINE, Share


def fetch_config(name: str) -> Path:
    """The folder of a model, with all but its weights downloaded. Raises ModelNotFoundError."""
    place = locate(name)
    return place if isinstance(place, Path) else download(place, weights=False)


def fetch_share(name: str, share: Share, on_download: OnDownload | None) -> Path:
    """The folder of a model, with the files downloaded that `share` needs. Raises ModelNotFoundError."""
    place = locate(name)
    if isinstance(place, Path) or share.mode != PIPELINE:
        return resolve(name, on_download)
    folder = download(place, weights=False)
    index = read_index(folder)
    return download(place, on_download, files=None if index is None else share_files(index, share))
