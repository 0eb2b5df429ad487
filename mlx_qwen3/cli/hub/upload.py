"""`mlx-qwen3 upload`: sends a checkpoint to the hub, with a card that says what it is and how to run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_qwen3.cli.output import write_line


def upload(
    folder: Annotated[Path, typer.Argument(help="The checkpoint.")],
    name: Annotated[str, typer.Argument(help="The repository on the hub: your-name/my-model.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and the card that would be sent, and stop.")
    ] = False,
) -> None:
    """Upload a checkpoint to the hub. A new repository is private unless --public says otherwise.

    A broken upload continues when the same command is run again.
    """
    from mlx_qwen3.conversion.upload import describe, plan_upload

    if dry_run:
        plan = plan_upload(folder, name)
        write_line(f"{describe(plan)}; nothing was sent\n")
        write_line(plan.card)
        return
    upload_folder(folder, name, private=not public)


def upload_folder(folder: Path, name: str, *, private: bool) -> None:
    """Upload `folder` and say where it is."""
    from mlx_qwen3.conversion.upload import describe, plan_upload
    from mlx_qwen3.conversion.upload import upload as send

    plan = plan_upload(folder, name)
    write_line(f"uploading {describe(plan)}")
    write_line(send(plan, private=private))
