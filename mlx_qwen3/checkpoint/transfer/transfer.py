"""A download on threads of its own: it is counted and told of where it is waited for, and can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar, cast

from mlx_qwen3.errors import LoadCancelledError

T = TypeVar("T")

OnDownload = Callable[[int, int], None]
"""Called with the bytes downloaded so far and the total bytes, as far as known."""

# Seconds between two looks at what has arrived and whether to go on.
INTERVAL = 0.1


class Cancel(Protocol):
    """What says that loading is no longer wanted: a `threading.Event`, or anything with its `is_set`."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Transfer:
    """The bytes of one download.

    on_download: called on the thread that waits in `run`, and on no other.
    cancel: looked at ten times a second; `run` then raises LoadCancelledError, without a wait for the hub.
    """

    def __init__(self, on_download: OnDownload | None = None, cancel: Cancel | None = None):
        self._on_download, self._cancel = on_download, cancel
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._done = self._total = self._expected = 0
        self._told = (0, 0)

    def expect(self, total: int) -> None:
        """Say how many bytes there are in all, and begin to count: those that are here already too."""
        with self._lock:
            self._expected, self._done = total, 0

    def add(self, count: int, total: int = 0) -> None:
        """Count bytes that arrived. Raises LoadCancelledError, which ends a thread of a stopped download.

        total: the bytes there are, where nothing better is known.
        """
        with self._lock:
            self._done += count
            self._total = max(self._total, total)
        self.check()

    def check(self) -> None:
        """Raise LoadCancelledError if the download was stopped."""
        if self._is_over.is_set():
            raise LoadCancelledError("the download was cancelled")

    def wait(self, seconds: float) -> None:
        """Wait, unless the download is stopped meanwhile. Raises LoadCancelledError then."""
        self._is_over.wait(seconds)
        self.check()

    def run(self, function: Callable[[], T]) -> T:
        """What `function` returns, run on a thread that is left alone if the download is stopped.

        Raises what it raises; LoadCancelledError; KeyboardInterrupt at once.
        """
        results: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def work() -> None:
            try:
                results.put((function(), None))
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                results.put((None, error))

        threading.Thread(target=work, name="mlx_qwen3 download", daemon=True).start()
        try:
            result, error = self._await(results)
        except BaseException:
            self._is_over.set()
            raise
        if error is not None:
            self._is_over.set()
            raise error
        return cast(T, result)

    def _await(self, results: SimpleQueue[tuple[T | None, BaseException | None]]) -> Any:
        while True:
            if self._cancel is not None and self._cancel.is_set():
                raise LoadCancelledError("the download was cancelled; another goes on where it stopped")
            try:
                result = results.get(timeout=INTERVAL)
            except Empty:
                self._tell()
            else:
                self._tell(is_end=result[1] is None)
                return result

    def _tell(self, is_end: bool = False) -> None:
        with self._lock:
            done = self._done
            total = max(self._expected or self._total, done)
        if is_end and done:
            done = total
        if self._on_download is not None and done and (done, total) != self._told:
            self._told = (done, total)
            self._on_download(done, total)


def progress_class(transfer: Transfer) -> type[Any]:
    """A progress bar class for huggingface_hub that draws nothing and counts for `transfer`."""
    from huggingface_hub.utils.tqdm import tqdm

    class Progress(tqdm):
        def __init__(self, *args: Any, **options: Any):
            # Some files have two bars: of the bytes written, and of those that came over the network.
            is_second = str(options.get("name") or "").endswith("transfer")
            self._counts = options.get("unit") == "B" and not is_second
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.total = options.get("total") or 0
            self.n = options.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0  # a disabled tqdm does not count
            if self._counts:
                transfer.add(int(n or 0), int(self.total or 0))
            else:
                transfer.check()

    return Progress
