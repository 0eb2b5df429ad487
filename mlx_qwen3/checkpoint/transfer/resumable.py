"""Downloads weight files into the hub's cache so that a stopped download goes on where it stopped.

huggingface_hub begins a file anew, which for one of several gigabytes may mean an hour. The names and the
places of finished files are the hub's own, so that it finds them there.
"""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mlx_qwen3.checkpoint.transfer.transfer import Transfer
from mlx_qwen3.errors import CheckpointError, ModelNotFoundError, Qwen3Error

WEIGHTS = ("*.safetensors", "*.gguf")
THREADS = 4
# Failures in a row, without a byte between them, after which a file is given up.
ATTEMPTS = 5
PAUSE = 1.0  # seconds after a failure
LARGEST = 50_000_000_000  # bytes; larger files are not sent by plain HTTP


def fetch_weights(
    repo_id: str, commit: str, wanted: list[str], ignored: list[str], cache: Path, transfer: Transfer
) -> None:
    """Download the weight files of a commit that match `wanted`, and count those that are here.

    Raises LoadCancelledError, CheckpointError where the disk is too small, and huggingface_hub's errors.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.file_download import repo_folder_name

    tree = HfApi().list_repo_tree(repo_id, recursive=True, revision=commit)
    files = [file for file in tree if hasattr(file, "size") and _is_wanted(file.path, wanted, ignored)]
    transfer.expect(sum(file.size for file in files))
    name = repo_folder_name(repo_id=repo_id, repo_type="model")
    weights = [file for file in files if _is_wanted(file.path, WEIGHTS, ()) and file.size <= LARGEST]
    blobs = cache / name / "blobs"
    missing = []
    for file in files:
        if (blobs / _digest(file)).exists():
            transfer.add(file.size)
        elif file in weights:
            missing.append(file)
    _check_room(repo_id, missing, blobs)
    _on_threads(lambda file: _Download(repo_id, commit, file, cache, name, transfer).run(), missing)


def _is_wanted(path: str, wanted: Iterable[str], ignored: Iterable[str]) -> bool:
    matches = any(fnmatch.fnmatch(path, pattern) for pattern in wanted)
    return matches and not any(fnmatch.fnmatch(path, pattern) for pattern in ignored)


def _digest(file: Any) -> str:
    """By which the hub's cache names a file: SHA-256 of a large one, git's id of another."""
    return str(file.lfs.sha256 if file.lfs else file.blob_id)


def _check_room(repo_id: str, missing: list[Any], blobs: Path) -> None:
    blobs.mkdir(parents=True, exist_ok=True)
    partial = sum(path.stat().st_size for path in blobs.glob("*.partial"))
    needed = sum(file.size for file in missing) - partial
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise CheckpointError(
            f"{repo_id} needs {needed / 1e9:.1f} GB more on the disk, which has {free / 1e9:.1f} GB left at "
            f"{blobs}: make room, or set HF_HOME to another disk"
        )


def _on_threads(function: Any, items: list[Any]) -> None:
    """Call `function` for all items, some at once. Raises the first error; the rest ends by itself."""
    waiting: SimpleQueue[Any] = SimpleQueue()
    finished: SimpleQueue[BaseException | None] = SimpleQueue()
    for item in items:
        waiting.put(item)

    def work() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except Empty:
                return
            try:
                function(item)
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                finished.put(error)
                return
            finished.put(None)

    for _ in range(min(THREADS, len(items))):
        threading.Thread(target=work, name="mlx_qwen3 download", daemon=True).start()
    for _ in items:
        if (error := finished.get()) is not None:
            raise error


class _Download:
    """One file on its way into the cache; what has arrived lies beside its place as `.partial`."""

    def __init__(self, repo_id: str, commit: str, file: Any, cache: Path, name: str, transfer: Transfer):
        from huggingface_hub import hf_hub_url

        self._repo_id, self._file, self._transfer = repo_id, file, transfer
        self._url = hf_hub_url(repo_id, file.path, revision=commit)
        self._blob = cache / name / "blobs" / _digest(file)
        self._partial = self._blob.with_name(f"{self._blob.name}.partial")
        self._lock = cache / ".locks" / name / f"{self._blob.name}.partial.lock"

    def run(self) -> None:
        """Download the file. Waits for another process that downloads it, and then goes on with its part."""
        from filelock import FileLock, Timeout

        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except Timeout:
                self._transfer.check()
        try:
            if self._blob.exists():
                self._transfer.add(self._file.size)
            else:
                self._receive_all()
        finally:
            lock.release()

    def _receive_all(self) -> None:
        from huggingface_hub.errors import HfHubHTTPError

        began_with = self._partial.stat().st_size if self._partial.exists() else 0
        if began_with > self._file.size:
            self._partial.unlink()
            began_with = 0
        self._transfer.add(began_with)
        failures, size = 0, began_with
        while size < self._file.size:
            before = size
            try:
                self._receive()
            except (Qwen3Error, HfHubHTTPError, OSError):
                raise
            except Exception:  # of the network, in the words of one of several HTTP libraries
                failures = 1 if self._size() > before else failures + 1
                if failures >= ATTEMPTS:
                    raise
                self._transfer.wait(PAUSE)
            size = self._size()
            if size == before and not failures:
                raise ModelNotFoundError(f"the hub sent nothing of {self._file.path} of {self._repo_id}")
        self._check(was_resumed=began_with > 0 or failures > 0)
        self._partial.replace(self._blob)

    def _size(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _receive(self) -> None:
        """Append what the hub sends from the part's end on."""
        from huggingface_hub import constants, get_session, hf_raise_for_status
        from huggingface_hub.utils._headers import build_hf_headers

        with self._partial.open("ab") as file:
            start = file.tell()
            headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
            if start:
                headers["Range"] = f"bytes={start}-"
            timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
            stream = get_session().stream(
                "GET", self._url, headers=headers, follow_redirects=True, timeout=timeout
            )
            with stream as response:
                hf_raise_for_status(response)
                if start and response.status_code != 206:  # the whole file comes
                    file.truncate(0)
                    self._transfer.add(-start)
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    self._transfer.add(len(chunk))

    def _check(self, was_resumed: bool) -> None:
        """Raise CheckpointError for a file that is not what the hub has, as parts put together may be."""
        is_whole = self._size() == self._file.size
        if is_whole and was_resumed and self._file.lfs:
            with self._partial.open("rb") as file:
                is_whole = hashlib.file_digest(file, "sha256").hexdigest() == self._file.lfs.sha256
        if not is_whole:
            self._partial.unlink()
            raise CheckpointError(
                f"{self._file.path} of {self._repo_id} arrived damaged and was deleted: download it again"
            )
