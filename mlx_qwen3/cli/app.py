"""`mlx-qwen3`: the commands. Errors become one line on stderr here."""

from __future__ import annotations

import copy
import gc
import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from mlx_qwen3 import __version__
from mlx_qwen3.cli.bench import bench
from mlx_qwen3.cli.chat.main import ChatCommand, chat
from mlx_qwen3.cli.convert import convert
from mlx_qwen3.cli.distributed.options import follow
from mlx_qwen3.cli.errors import error_line, is_usage_error, unknown_command, usage_line
from mlx_qwen3.cli.generate import generate
from mlx_qwen3.cli.health.doctor import doctor
from mlx_qwen3.cli.health.once import apply_settings
from mlx_qwen3.cli.health.standard_streams import repair_streams
from mlx_qwen3.cli.hub.pull import pull, rm
from mlx_qwen3.cli.hub.upload import upload
from mlx_qwen3.cli.models import models
from mlx_qwen3.cli.output import show_warning, write_error, write_line
from mlx_qwen3.cli.retrieval.embed import embed
from mlx_qwen3.cli.retrieval.rerank import rerank
from mlx_qwen3.cli.serving.serve import serve
from mlx_qwen3.cli.training.finetune import finetune
from mlx_qwen3.cli.verify import verify
from mlx_qwen3.errors import Qwen3Error, install_command

INTERRUPTED = 130  # what a shell reports for a program stopped by Ctrl-C


class _Commands(TyperGroup):
    """The commands; one that is not there is answered with those that are near."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise typer.BadParameter(unknown_command(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    name="mlx-qwen3",
    help="Chat with, convert and build on Qwen3 models, on Apple silicon and beyond.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("bench")(bench)
app.command("chat", cls=ChatCommand)(chat)
app.command("convert")(convert)
app.command("doctor")(doctor)
app.command("embed")(embed)
app.command("finetune")(finetune)
app.command("follow", hidden=True)(follow)
app.command("generate")(generate)
app.command("models")(models)
app.command("pull")(pull)
app.command("rerank")(rerank)
app.command("rm")(rm)
app.command("serve")(serve)
app.command("upload")(upload)
app.command("verify")(verify)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        write_line(f"mlx-qwen3 {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0, 1 for a failure (one line on stderr), 2 for wrong usage."""
    # Python looks for cycles after every 700 new objects, 165 times while modules are imported: a
    # tenth of the time until a prompt is there.
    gc.set_threshold(20_000)
    repair_streams()
    apply_settings()
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    program = _with_one_command(arguments[0])
    if os.environ.get("MLX_QWEN3_DEBUG"):
        program(arguments)
        return
    try:
        warnings.showwarning = show_warning
        code = program(arguments, standalone_mode=False)
    except Qwen3Error as error:
        sys.exit(_print_error(error_line(error)))
    except (KeyboardInterrupt, typer.Abort):
        _leave_at_once()
    except BrokenPipeError:
        # The reader of the pipe has closed it, as `| head` does. Flushing would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # no traceback reaches a user
        if is_usage_error(error):
            write_error(usage_line(error))
            sys.exit(2)
        sys.exit(_print_error(_unexpected(error)))
    if code == INTERRUPTED:  # what Typer makes of a KeyboardInterrupt
        _leave_at_once()
    sys.exit(code)


def _leave_at_once() -> NoReturn:
    """Exit without cleanup: an engine that is still loading can neither be waited for nor torn down."""
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def _with_one_command(name: str) -> typer.Typer:
    """The program with the command `name` alone, if there is such a one: Typer reads the options of all."""
    commands = [command for command in app.registered_commands if command.name == name]
    if not commands:
        return app
    small = copy.copy(app)
    small.registered_commands = commands
    return small


def _unexpected(error: Exception) -> str:
    if isinstance(error, ImportError) and "libmlx" in str(error):
        return (
            f"MLX has nothing to compute with here: {install_command('cpu')}, or for an NVIDIA GPU "
            f"{install_command('cuda')} (not both: each brings a libmlx.so)"
        )
    return f"unexpected {type(error).__name__}: {error} (MLX_QWEN3_DEBUG=1 shows where)"


def _print_error(message: str) -> int:
    write_error(message)
    return 1
