"""Tensors on the hub: reading one downloads its file, and starts the download of the next file."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_qwen3.backend.safetensors_io import DTYPES
from mlx_qwen3.checkpoint.hub import cached_file, download_file, remote_header
from mlx_qwen3.checkpoint.packed.stored_rows import read_stored_rows
from mlx_qwen3.checkpoint.safetensors_files import (
    INDEX,
    SINGLE,
    is_placed,
    read_index,
    tensors_in,
)
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.checkpoint.transfer.transfer import OnDownload
from mlx_qwen3.conversion.source.tensors import SourceTensor
from mlx_qwen3.errors import CheckpointError

POLL_SECONDS = 0.05  # between checks whether the downloads were closed
CLOSE_SECONDS = 5.0  # that `close` waits for each running download


class Downloads:
    """Downloads the weight files of one commit of a repository. Only `read` may be called by several threads.

    folder: where the files go; each is removed when it is no longer expected. None is the hub's cache,
    where they stay.
    """

    def __init__(self, repository: str, commit: str, folder: Path | None, on_download: OnDownload | None):
        self.repository, self.commit, self.folder = repository, commit, folder
        self._on_download = on_download
        self._files: dict[str, _Download] = {}
        self._expected: list[str] = []
        self._lock = threading.Lock()
        self.is_closed = False

    def is_set(self) -> bool:
        """Whether downloads shall end."""
        return self.is_closed

    def close(self) -> None:
        """Stop running downloads. A later one continues where they stopped."""
        self.is_closed = True
        for file in list(self._files.values()):
            file.wait(CLOSE_SECONDS)

    @property
    def keeps_files(self) -> bool:
        """Whether files stay after use, so that they can be read again."""
        return self.folder is None

    def headers(self, name: str) -> list[StoredTensor]:
        """The tensors of a file, without a download. Raises ModelNotFoundError, CheckpointError."""
        cached = cached_file(self.repository, name, self.commit)
        if cached is not None:
            return tensors_in(cached)
        return remote_header(self.repository, name, self.commit)

    def expect(self, names: Iterable[str]) -> None:
        """Say which files will be read, in order. Others are removed, unless they are in the hub's cache."""
        self._expected = list(dict.fromkeys(names))
        for name in [name for name in self._files if name not in self._expected]:
            self._files.pop(name).discard(self.folder)

    def read(self, tensor: StoredTensor, first: int, count: int) -> mx.array:
        """Rows of a tensor. Waits for the download of its file, then starts that of the next file."""
        name = tensor.file.name
        local = self._start(name).tensor(tensor)
        if name in self._expected:
            for following in self._expected[self._expected.index(name) + 1 :][:1]:
                self._start(following)
        return read_stored_rows(local, first, count)

    def _start(self, name: str) -> _Download:
        with self._lock:
            if name not in self._files:
                self._files[name] = _Download(self, name)
            return self._files[name]

    def report(self) -> None:
        """Report the bytes received of all files that were started."""
        if self._on_download is not None:
            files = list(self._files.values())
            self._on_download(sum(file.done for file in files), sum(file.total for file in files))


class _Download:
    """The download of one file, in a daemon thread: a program that exits does not wait for it."""

    def __init__(self, downloads: Downloads, name: str):
        self._downloads, self._name = downloads, name
        self._path: Path | None = None
        self._error: Exception | None = None
        self._tensors: dict[str, StoredTensor] = {}
        self.done = self.total = 0
        self._thread = threading.Thread(target=self._run, name=f"download {name}", daemon=True)
        self._thread.start()

    def tensor(self, expected: StoredTensor) -> StoredTensor:
        """`expected` as it is in the downloaded file. Waits for the download until the downloads are closed.

        Raises ModelNotFoundError, CheckpointError.
        """
        while self._thread.is_alive():
            if self._downloads.is_closed:
                raise CheckpointError(f"the download of {self._name} was stopped")
            self._thread.join(POLL_SECONDS)
        if self._error is not None:
            raise self._error
        tensor = self._tensors.get(expected.name)
        if tensor is None or (tensor.shape, tensor.dtype) != (expected.shape, expected.dtype):
            raise CheckpointError(f"{self._path} has no {expected.name} as the hub said; download it again")
        return tensor

    def wait(self, seconds: float) -> None:
        """Wait for the thread to end, at most `seconds`."""
        self._thread.join(seconds)

    def discard(self, folder: Path | None) -> None:
        """Remove the file once it is downloaded, if it is in `folder`."""
        self._thread.join()
        if self._path is not None and folder is not None and folder in self._path.parents:
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        downloads = self._downloads
        try:
            self._path = cached_file(downloads.repository, self._name, downloads.commit) or download_file(
                downloads.repository,
                self._name,
                downloads.commit,
                downloads.folder,
                self._report,
                cancel=downloads,
            )
            self._tensors = {tensor.name: tensor for tensor in tensors_in(self._path)}
        except Exception as error:  # noqa: BLE001  # raised again by `tensor`
            self._error = error

    def _report(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self._downloads.report()


class HubTensor(SourceTensor):
    """A tensor of a safetensors file on the hub, not quantized."""

    def __init__(self, tensor: StoredTensor, downloads: Downloads):
        self.tensor, self._downloads = tensor, downloads
        self.name, self.shape, self.num_bytes = tensor.name, tensor.shape, tensor.num_bytes
        self.file = Path(downloads.repository) / tensor.file.name

    @property
    def dtype(self) -> mx.Dtype:
        return DTYPES[self.tensor.dtype]

    def read(self, first: int, count: int) -> mx.array:
        return self._downloads.read(self.tensor, first, count)

    @property
    def identity(self) -> list[Any]:
        return [self.name, self.file.name, self.tensor.dtype]

    @property
    def version(self) -> str:
        return f"{self._downloads.repository} {self._downloads.commit}"


def remote_tensors(downloads: Downloads, folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the repository by name, from the files' headers.

    folder: holds the repository's index, if it has one. Raises CheckpointError, ModelNotFoundError.
    """
    index = read_index(folder)
    names = [SINGLE] if index is None else sorted(set(index.values()))
    tensors = {tensor.name: tensor for name in names for tensor in downloads.headers(name)}
    for name, file in (index or {}).items():
        if not is_placed(name, file, tensors):
            raise CheckpointError(
                f"{INDEX} of {downloads.repository} places {name} in {file}, which lacks it"
            )
    return tensors
