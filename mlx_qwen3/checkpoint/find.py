"""Where a model is: a folder, `demo`, a short name of the family, or a hub id."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mlx_qwen3.errors import ModelNotFoundError

DEMO = "demo"
DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

OnDownload = Callable[[int, int], None]
"""Called with the bytes downloaded so far, and the bytes there are as far as known."""


@dataclass(frozen=True)
class FamilyMember:
    """An official Qwen3 checkpoint in MLX's 4-bit form. `num_bytes` counts its weights."""

    name: str
    repository: str
    num_parameters: int
    num_active_parameters: int
    num_bytes: int


# num_bytes of 1.7b, 8b and 14b is as published (groups of 128, 128 and 64); the others' is what 4 bits in
# groups of 64 come to, and at most 6 % too much.
FAMILY = {
    member.name: member
    for member in (
        FamilyMember("0.6b", "Qwen/Qwen3-0.6B-MLX-4bit", 596_049_920, 596_049_920, 335_372_288),
        FamilyMember("1.7b", "Qwen/Qwen3-1.7B-MLX-4bit", 1_720_574_976, 1_720_574_976, 914_237_440),
        FamilyMember("4b", "Qwen/Qwen3-4B-MLX-4bit", 4_022_468_096, 4_022_468_096, 2_262_920_192),
        FamilyMember("8b", "Qwen/Qwen3-8B-MLX-4bit", 8_190_735_360, 8_190_735_360, 4_351_780_864),
        FamilyMember("14b", "Qwen/Qwen3-14B-MLX-4bit", 14_768_307_200, 14_768_307_200, 8_307_783_680),
        FamilyMember("32b", "Qwen/Qwen3-32B-MLX-4bit", 32_762_123_264, 32_762_123_264, 18_429_667_328),
        FamilyMember("30b-a3b", "Qwen/Qwen3-30B-A3B-MLX-4bit", 30_532_122_624, 3_353_032_704, 17_180_913_664),
        FamilyMember(
            "235b-a22b", "Qwen/Qwen3-235B-A22B-MLX-4bit", 235_093_634_560, 22_190_763_520, 132_265_958_400
        ),
    )
}

SHORT_NAMES = tuple(FAMILY)


def resolve(name: str | Path, on_download: OnDownload | None = None) -> Path:
    """The folder of the model called `name`; a hub repository not yet here is downloaded.

    name: `demo`, a short name (`14b`, see FAMILY), a folder, or a hub id (`org/name`). A folder that
    is called like a short name is reached as `./14b`. Raises ModelNotFoundError, saying what to do.
    """
    name = str(name)
    if name == DEMO:
        return _folder(DEMO_FOLDER)
    if member := FAMILY.get(name.lower()):
        return _download(member.repository, on_download)
    path = Path(name).expanduser()
    if path.exists():
        return _folder(path)
    if _is_path(name) or not HUB_ID.fullmatch(name):
        raise ModelNotFoundError(_not_found(name, path))
    try:
        return _download(name, on_download)
    except ModelNotFoundError as error:  # it may as well have been a folder, with a typo
        raise ModelNotFoundError(f"{error}{_suggestion(path.name, _folders(path.parent))}") from error


def _download(repository: str, on_download: OnDownload | None) -> Path:
    # Imported here: huggingface_hub takes half a second, and a folder does not need it.
    from mlx_qwen3.checkpoint.hub import download

    return download(repository, on_download)


def _folder(path: Path) -> Path:
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
