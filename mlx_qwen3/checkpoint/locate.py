"""Where a model is: a folder, `demo`, a short name of the family, or a hub id."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from mlx_qwen3.checkpoint.catalog import FAMILY
from mlx_qwen3.errors import ModelNotFoundError

DEMO, DEMO_DRAFT = "demo", "demo-draft"
DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo"
PACKAGED = {DEMO: DEMO_FOLDER, DEMO_DRAFT: DEMO_FOLDER / "draft"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

T = TypeVar("T")
OnDownload = Callable[[int, int], None]
"""Called with the bytes downloaded so far, and the bytes there are as far as known."""


def resolve(name: str | Path, on_download: OnDownload | None = None) -> Path:
    """The folder of the model called `name`; a hub repository not yet here is downloaded.

    name: `demo` (or `demo-draft`, which drafts for it), a short name (`14b`, see FAMILY), a folder, or a
    hub id (`org/name`). A folder that is called like a short name is reached as `./14b`.
    Raises ModelNotFoundError, saying what to do.
    """
    return find(name, lambda folder: folder, lambda repository: _download(repository, on_download))


def find(name: str | Path, in_folder: Callable[[Path], T], on_hub: Callable[[str], T]) -> T:
    """What `in_folder` makes of the folder, or `on_hub` of the repository, that `name` stands for.

    name: as for `resolve`. Raises ModelNotFoundError, saying what to do.
    """
    name = str(name)
    if folder := PACKAGED.get(name):
        return in_folder(_folder(folder))
    if member := FAMILY.get(name.lower()):
        return on_hub(member.repository)
    path = Path(name).expanduser()
    if path.exists():
        return in_folder(_folder(path))
    if _is_path(name) or not HUB_ID.fullmatch(name):
        raise ModelNotFoundError(_not_found(name, path))
    try:
        return on_hub(name)
    except ModelNotFoundError as error:  # it may as well have been a folder, with a typo
        raise ModelNotFoundError(f"{error}{_suggestion(path.name, _folders(path.parent))}") from error


def _download(repository: str, on_download: OnDownload | None) -> Path:
    # Imported here: huggingface_hub takes half a second, and a folder does not need it.
    from mlx_qwen3.checkpoint.hub import download

    return download(repository, on_download)


def _folder(path: Path) -> Path:
    if path.suffix == ".gguf":
        raise ModelNotFoundError(f"{path} has to be converted first: mlx-qwen3 convert {path}")
    if not path.is_dir():
        raise ModelNotFoundError(f"{path} is not a folder: name the folder that holds config.json")
    return path


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.endswith("/")


def _not_found(name: str, path: Path) -> str:
    if "/" in name or _is_path(name):
        hint = _suggestion(path.name, _folders(path.parent))
        return f"no folder {path}{hint}; name a folder that holds config.json"
    known = [*FAMILY, DEMO]
    hint = _suggestion(re.sub(r"^qwen3?[-:_]?", "", name.lower()), [*known, *_folders(Path())])
    return f"no model {name!r}{hint}; known are {', '.join(known)}, a folder, or a hub id like Qwen/Qwen3-14B"


def _folders(parent: Path) -> list[str]:
    try:
        return [entry.name for entry in parent.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _suggestion(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
