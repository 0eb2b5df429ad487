"""A checkpoint opened for conversion: its config, its tensors, and the files that are copied with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.conversion.source.tensors import SourceTensor
from mlx_qwen3.model.config import ModelConfig

if TYPE_CHECKING:
    from mlx_qwen3.conversion.source.hub import Downloads


@dataclass(frozen=True)
class SourceCheckpoint:
    """A checkpoint whose names and shapes were checked. Weights are read from it when they are needed."""

    path: Path  # its folder, or its GGUF file
    raw_config: Mapping[str, Any]  # the content of config.json
    config: ModelConfig
    tensors: Mapping[str, SourceTensor]  # by Qwen's published names; experts one by one or stacked
    write_files: Callable[[Path], None]  # writes tokenizer, chat template and other small files to a folder
    downloads: Downloads | None = None  # the weight files, if they are on the hub
    adapter: str | None = None  # the folder of an adapter that is fused into the tensors

    def close(self) -> None:
        """Stop the downloads that are running."""
        if self.downloads is not None:
            self.downloads.close()
