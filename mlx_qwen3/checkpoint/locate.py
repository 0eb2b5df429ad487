"""Finds a model by its name: a folder, `demo`, a short name of the family, or a hub id."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from mlx_qwen3.checkpoint.catalog import FAMILY
from mlx_qwen3.checkpoint.hub import download, downloaded
from mlx_qwen3.checkpoint.hub_address import HUB_ID, from_address, split_revision
from mlx_qwen3.checkpoint.transfer.transfer import Cancel, OnDownload
from mlx_qwen3.errors import ModelNotFoundError, one_line

DEMO, DEMO_DRAFT = "demo", "demo-draft"
DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo"
PACKAGED = {DEMO: DEMO_FOLDER, DEMO_DRAFT: DEMO_FOLDER / "draft"}
PUBLISHERS = ("Qwen", "mlx-community")


def resolve(
    name: str | Path,
    on_download: OnDownload | None = None,
    *,
    cancel: Cancel | None = None,
    models_dir: str | Path | None = None,
    revision: str | None = None,
) -> Path:
    """The folder of a model. A hub repository that is not cached yet is downloaded.

    Args:
        name: `demo` (or `demo-draft`, its draft model), a short name (`14b`, see FAMILY), a folder, or a
            hub id (`org/name`, `org/name@revision` or its address). A folder named like a short name is
            given as a Path, or as `./14b`.
        on_download: Told how many bytes have arrived.
        cancel: Ends the download when it is set.
        models_dir: Where downloads go in place of the hub's cache. A folder of that name in it is used.
        revision: A branch, a tag or a commit of the hub's repository.

    Raises:
        ModelNotFoundError: There is no such model; the message says what to do.
        LoadCancelledError: `cancel` was set.
    """
    cache = None if models_dir is None else Path(models_dir).expanduser()
    if cache is not None and revision is None and (cache / str(name) / "config.json").is_file():
        return cache / str(name)
    place = locate(name)
    if revision is not None:
        place = _at_revision(name, place, revision)
    if isinstance(place, Path):
        return place
    # A short name is whose weights and template ran first, until they are deleted from the hub's cache.
    is_short = str(name).lower() in FAMILY
    try:
        here = downloaded(place, cache) if is_short else None
        return here or download(place, on_download, cancel=cancel, cache=cache)
    except ModelNotFoundError as error:
        raise with_folder_hint(error, name) from error


def _at_revision(name: str | Path, place: Path | str, revision: str) -> str:
    if isinstance(place, Path):
        raise ModelNotFoundError(f"a revision can only be given for a model of the hub; {name} is a folder")
    repository, named = split_revision(place)
    if named is not None:
        raise ModelNotFoundError(f"{place} names a revision already; leave out {revision}")
    return f"{repository}@{revision}"


def locate(name: str | Path) -> Path | str:
    """Where the model `name` is: a folder, or the id of a hub repository. Uses no network.

    Takes the names that `resolve` takes. Raises ModelNotFoundError, which says what to do.
    """
    if isinstance(name, Path) and name.is_dir():
        return name
    name = from_address(str(name))
    if packaged := PACKAGED.get(name):
        return _checked_folder(packaged)
    if member := FAMILY.get(name.lower()):
        return member.repository
    path = _path(name)
    if path.exists():
        _warn_of_hub_name(name, path)
        return _checked_folder(path)
    if _is_path(name) or not HUB_ID.fullmatch(name):
        raise ModelNotFoundError(_not_found(name, path))
    return name


def with_folder_hint(error: ModelNotFoundError, name: str | Path) -> ModelNotFoundError:
    """`error` of a hub id, with the folder of a similar name: the id may be a mistyped path."""
    path = Path(name).expanduser()
    hint = _did_you_mean(path.name, _folders(path.parent)) if "/" in str(name) else ""
    return ModelNotFoundError(f"{error}{hint}")


def _path(name: str) -> Path:
    """`name` as a path. Raises ModelNotFoundError for what no file system could hold."""
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long; no such user
        raise ModelNotFoundError(f"no model {name!r}: {one_line(error, 100)}") from None
    return path


def _warn_of_hub_name(name: str, path: Path) -> None:
    """Say that a folder is used although the hub has a model of that name, which the user may have meant."""
    is_publisher = name.partition("/")[0] in PUBLISHERS
    if is_publisher and HUB_ID.fullmatch(name) and path.is_dir():
        warnings.warn(
            f"the folder {path.absolute()} is used, not {name} of the hub; write ./{name} to mean the folder",
            stacklevel=3,
        )


def _checked_folder(path: Path) -> Path:
    if path.suffix == ".gguf":
        raise ModelNotFoundError(f"{path} has to be converted first: mlx-qwen3 convert {path}")
    if not path.is_dir():
        raise ModelNotFoundError(f"{path} is not a folder: name the folder that holds config.json")
    return path


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.endswith("/")


def _not_found(name: str, path: Path) -> str:
    if "/" in name or _is_path(name):
        hint = _did_you_mean(path.name, _folders(path.parent))
        return f"no folder {path}{hint}; name a folder that holds config.json"
    known = [*FAMILY, DEMO]
    hint = _did_you_mean(re.sub(r"^qwen3?[-:_]?", "", name.lower()), [*known, *_folders(Path())])
    return f"no model {name!r}{hint}; known are {', '.join(known)}, a folder, or a hub id like Qwen/Qwen3-14B"


def _folders(parent: Path) -> list[str]:
    try:
        return [entry.name for entry in parent.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
