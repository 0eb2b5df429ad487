"""`mlx-qwen3 pull` and `rm`: downloads a model, and deletes one from the hub's cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_qwen3.cli.output import ask, program, write_line
from mlx_qwen3.errors import ModelNotFoundError

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo

NAME = typer.Argument(help="A short name (14b), a hub id (org/name, org/name@revision), or its address.")


def pull(name: Annotated[str, NAME]) -> None:
    """Download a model, or what is missing of it. A download that was stopped goes on."""
    from mlx_qwen3.checkpoint.hub import download
    from mlx_qwen3.checkpoint.locate import locate, with_folder_hint
    from mlx_qwen3.cli.progress import DownloadBar, progress_bars

    place = locate(name)
    if isinstance(place, Path):
        write_line(f"{name} is on this machine: {place}")
        return
    try:
        with progress_bars() as bars:
            folder = download(place, DownloadBar(bars))
    except ModelNotFoundError as error:
        raise with_folder_hint(error, name) from error
    size = sum(file.stat().st_size for file in folder.iterdir())
    write_line(f"{place}: {size / 1e9:.1f} GB in {folder}")
    write_line(f"chat with it: {program()} chat --model {name}")


def rm(
    name: Annotated[str, NAME],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """Delete a model from the hub's cache, with every revision of it."""
    from mlx_qwen3.checkpoint.hub_address import split_revision
    from mlx_qwen3.checkpoint.locate import locate

    place = locate(name)
    if isinstance(place, Path):
        raise ModelNotFoundError(f"{place} was not downloaded by this program; delete the folder yourself")
    repository, _ = split_revision(place)
    repo = next((repo for repo in cached_repositories() if repo.repo_id == repository), None)
    if repo is None:
        raise ModelNotFoundError(f"{repository} is not in the hub's cache; `mlx-qwen3 models` lists what is")
    size = f"{repo.size_on_disk / 1e9:.1f} GB"
    if not yes and not _is_confirmed(f"Delete {repository}, {size}? [y/N] "):
        write_line("nothing was deleted")
        return
    from huggingface_hub import scan_cache_dir

    commits = [revision.commit_hash for revision in repo.revisions]
    scan_cache_dir().delete_revisions(*commits).execute()
    write_line(f"deleted {repository}, {size}")


def cached_repositories() -> list[CachedRepoInfo]:
    """The model repositories in the hub's cache; none where there is no cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return sorted(
            (repo for repo in scan_cache_dir().repos if repo.repo_type == "model"),
            key=lambda repo: repo.repo_id,
        )
    except CacheNotFound:
        return []


def _is_confirmed(question: str) -> bool:
    try:
        return ask(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
