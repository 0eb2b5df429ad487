"""What a checkpoint's folder holds, known from headers alone: nothing is loaded, nothing unpickled."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from mlx_qwen3.errors import CheckpointError, ConfigError
from mlx_qwen3.model.config import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
# As safetensors spells them; what is not here no Qwen3 checkpoint needs.
DTYPES = {
    "BF16": mx.bfloat16,
    "F16": mx.float16,
    "F32": mx.float32,
    "U32": mx.uint32,
    "U8": mx.uint8,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file. dtype is spelled as there; `offset` is its place in the file."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int
    num_bytes: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint in `folder`, by name.

    Raises CheckpointError when the index or a file it names is missing, when a file is cut off or
    is not safetensors, and when two files hold the same tensor.
    """
    index = read_index(folder)
    tensors: dict[str, StoredTensor] = {}
    for file in _weight_files(folder, index):
        for tensor in read_header(file):
            if (twin := tensors.get(tensor.name)) is not None:
                raise CheckpointError(
                    f"{file} and {twin.file.name} both hold {tensor.name}; remove the file that is not part "
                    "of the checkpoint"
                )
            tensors[tensor.name] = tensor
    _check_index(folder, index, tensors)
    return tensors


def read_header(file: Path) -> list[StoredTensor]:
    """The tensors of one safetensors file. Raises CheckpointError when the file is not whole."""
    try:
        # safe_open checks that the header is sound and that the file is as long as it says.
        with safe_open(file, "np"), file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged or cut off ({error}); download it again") from None
    return [
        StoredTensor(
            name=name,
            file=file,
            shape=tuple(entry["shape"]),
            dtype=entry["dtype"],
            offset=8 + length + entry["data_offsets"][0],
            num_bytes=entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    ]


def read_index(folder: Path) -> dict[str, str] | None:
    """Tensor name -> file name, as the index says; None where there is no index."""
    path = folder / INDEX
    if not path.exists():
        return None
    try:
        index = read_json(path).get("weight_map")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(index, dict) or not all(_is_file_name(file) for file in index.values()):
        raise CheckpointError(f"{path} has no sound weight_map; download it again")
    return index


def _is_file_name(name: object) -> bool:
    # A plain name: an index must not reach out of its folder, nor name a file of another kind.
    return isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")


def _weight_files(folder: Path, index: dict[str, str] | None) -> list[Path]:
    if index is None:
        files = [folder / SINGLE] if (folder / SINGLE).exists() else sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(_no_weights(folder))
        return files
    names = sorted(set(index.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder} lacks {few(missing)} of the {len(names)} files its index names; download them again"
        )
    return [folder / name for name in names]


def _no_weights(folder: Path) -> str:
    if pickled := sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED):
        return (
            f"{folder} holds only pickled weights ({few(pickled)}), which can run code and are not opened; "
            "get the checkpoint as .safetensors"
        )
    return f"{folder} holds no .safetensors file; download the checkpoint's weights"


def _check_index(folder: Path, index: dict[str, str] | None, tensors: dict[str, StoredTensor]) -> None:
    """Every tensor the index names must be in the file it names."""
    for name, file in (index or {}).items():
        if name not in tensors or tensors[name].file.name != file:
            raise CheckpointError(
                f"{folder / file} lacks {name}, which the index places there; download it again"
            )


def few(names: Iterable[str], limit: int = 3) -> str:
    """The first `limit` names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
