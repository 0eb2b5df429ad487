"""Reports how far a conversion or a verification is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CONVERTING, CHECKING, PROBING = "converting", "checking", "probing"


@dataclass(frozen=True)
class Progress:
    """How far one stage of the work is.

    Attributes:
        tensor: The name of the tensor that was read last; empty while probing.
        done_bytes: Bytes of weights read in this stage.
        total_bytes: Bytes of weights this stage reads.
        stage: `converting`, `checking` (comparing the result with its source) or `probing` (predictions).
    """

    tensor: str
    done_bytes: int
    total_bytes: int
    stage: str = CONVERTING


OnProgress = Callable[[Progress], None]


class Meter:
    """Adds up the bytes of one stage and reports them."""

    def __init__(self, stage: str, total: int, on_progress: OnProgress | None):
        self._stage, self._total, self._on_progress = stage, total, on_progress
        self._done = 0

    def advance(self, tensor: str, num_bytes: int) -> None:
        """`num_bytes` more of `tensor` are done."""
        self._done = min(self._done + num_bytes, self._total)
        if self._on_progress is not None:
            self._on_progress(Progress(tensor, self._done, self._total, self._stage))

    def finish(self) -> None:
        """End the stage; some of its bytes may not have been needed."""
        self.advance("", self._total)
