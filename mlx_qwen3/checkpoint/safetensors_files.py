"""Lists a checkpoint's tensors from its files' headers. No weight is loaded, and nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mlx_qwen3.backend.safetensors_io import read_header
from mlx_qwen3.checkpoint.tensor_names import (
    MAX_TENSORS,
    SURPLUS,
    StoredTensor,
    first_expert,
    published_name,
    published_tensors,
)
from mlx_qwen3.errors import CheckpointError, ConfigError, one_line
from mlx_qwen3.model.config import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint in `folder`, by the name that Qwen publishes.

    Raises CheckpointError if the index is broken or names a missing file, if a file is cut off or is not
    safetensors, and if two files hold the same tensor.
    """
    index = read_index(folder)
    tensors: dict[str, StoredTensor] = {}
    for file in _weight_files(folder, index):
        for tensor in tensors_in(file):
            if (duplicate := tensors.get(tensor.name)) is not None:
                raise CheckpointError(
                    f"{file} and {duplicate.file.name} both hold {few([tensor.name])}; "
                    "remove the file that is not part of the checkpoint"
                )
            tensors[tensor.name] = tensor
        if len(tensors) > MAX_TENSORS:
            raise CheckpointError(f"{folder} holds more than {MAX_TENSORS:,} tensors; no Qwen3 model does")
    _check_index(folder, index, tensors)
    return tensors


def tensors_in(file: Path) -> list[StoredTensor]:
    """The tensors of one safetensors file. Raises CheckpointError if the file is not complete."""
    if not file.is_file():  # opening a FIFO would wait for ever
        raise CheckpointError(f"{file} is not a file")
    try:
        entries = read_header(file).tensors
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut off ({one_line(error, 100)}); download it again"
        ) from None
    return published_tensors(
        StoredTensor(name, file, entry.shape, entry.dtype, entry.start, entry.stop - entry.start)
        for name, entry in entries.items()
    )


MAX_NAME_BYTES = 255  # longer ones are an error to file systems


def read_index(folder: Path) -> dict[str, str] | None:
    """The index, tensor name as stored -> file name; None if there is none.

    Raises CheckpointError if it is broken.
    """
    path = folder / INDEX
    if not path.exists():
        return None
    try:
        index = read_json(path).get("weight_map")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(index, dict) or not all(_is_file_name(file) for file in index.values()):
        raise CheckpointError(f"{path} has no valid weight_map; download it again")
    return index


def _is_file_name(name: object) -> bool:
    # An index must not name a file outside its folder, nor one of another format.
    if not (isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")):
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES


def _weight_files(folder: Path, index: dict[str, str] | None) -> list[Path]:
    if index is None:
        files = [folder / SINGLE] if (folder / SINGLE).exists() else sorted(visible_weight_files(folder))
        if not files:
            raise CheckpointError(_no_weights(folder))
        return files
    names = sorted(set(index.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder} lacks {few(missing)} of the {len(names)} files its index names; download them again"
        )
    return [folder / name for name in names]


def visible_weight_files(folder: Path) -> list[Path]:
    """The safetensors files in `folder`, without `._model.safetensors`, macOS's attributes on exFAT."""
    return [file for file in folder.glob("*.safetensors") if not file.name.startswith(".")]


def _no_weights(folder: Path) -> str:
    visible = [file for file in folder.iterdir() if not file.name.startswith(".")]
    if pickled := sorted(file.name for file in visible if file.suffix in PICKLED):
        return (
            f"{folder} holds only pickled weights ({few(pickled)}), which can run code and are not opened; "
            "get the checkpoint as .safetensors"
        )
    return f"{folder} holds no .safetensors file; download the checkpoint's weights"


def _check_index(folder: Path, index: dict[str, str] | None, tensors: dict[str, StoredTensor]) -> None:
    """Raise CheckpointError unless each tensor is in the file that the index names."""
    for name, file in (index or {}).items():
        if not is_placed(name, file, tensors):
            raise CheckpointError(
                f"{folder / file} lacks {few([name])}, which the index places there; download it again"
            )


def is_placed(name: str, file: str, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the tensor that the index calls `name` is in `file`, or is not part of the model."""
    if SURPLUS.fullmatch(name):
        return True
    tensor = tensors.get(published_name(name)) or tensors.get(first_expert(published_name(name)))
    return tensor is not None and tensor.file.name == file


def few(names: Iterable[str], limit: int = 3) -> str:
    """The first `limit` names, each in one line of at most 80 characters, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(one_line(name, 80) for name in names[:limit]) + more
