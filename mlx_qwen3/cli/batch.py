"""`mlx-qwen3 generate --batch`: reads a file of prompts and writes one line of JSON for each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.cli.flags import MAX_TOKENS
from mlx_qwen3.cli.output import write_note
from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine
    from mlx_qwen3.engine.batch import BatchRequest, BatchRun


def run_batch(
    make_engine: Callable[[], Engine],
    file: Path,
    out: Path | None,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    is_raw: bool = False,
) -> None:
    """Generate for each request of `file`. The results go to `out`, or to standard output.

    settings: everything beside the requests that the results depend on; a run continues an earlier one only
    if they are equal. options: the arguments of `generate_batch`. is_raw: plain lines are continued and not
    answered. Raises MessageError for a file that cannot be used, and at the end if requests failed.
    """
    from mlx_qwen3.cli.batch_file import ResultFile, ResultStream, read_requests, result_line

    read = read_requests(_read(file), str(file), is_raw)
    requests = [_with_defaults(request, options) for request in read]
    results = ResultStream(sys.stdout) if out is None else ResultFile(out, requests, settings)
    waiting = [index for index in range(len(requests)) if index not in results.done]
    if out is not None and len(waiting) < len(requests):
        write_note(f"continuing: {len(requests) - len(waiting)} of {len(requests)} were done before")
    if not requests:
        write_note(f"{file} holds no prompts")
    failed = 0
    try:
        with make_engine() as engine:
            run = engine.generate_batch([requests[index] for index in waiting], **options)
            # Results that go to the same terminal say as much, and would be written into the bar.
            with _progress_bar(run, is_hidden=out is None and sys.stdout.isatty()) as advance:
                for result in run:
                    index = waiting[result.index]
                    results.add(index, result_line(requests[index], result))
                    failed += result.error is not None
                    advance()
    except KeyboardInterrupt:
        if out is not None:
            write_note("stopped; the same command continues from here")
        raise
    results.finish()
    if failed:
        raise MessageError(f"{failed} of {len(requests)} requests failed; their lines say why ('error')")


def _with_defaults(request: BatchRequest, options: Mapping[str, Any]) -> BatchRequest:
    """`request` with the default token limit, if it is a raw completion and the user gave none.

    Each of a line's results also gets a seed of its own, made of the one that is given for all.
    """
    from mlx_qwen3.cli.batch_file import Choice

    given: Mapping[str, Any] = options["sampling"]
    defaults: dict[str, Any] = {}
    if request.prompt is not None and "max_tokens" not in given:
        defaults["max_tokens"] = MAX_TOKENS
    if isinstance(request, Choice) and given.get("seed") is not None:
        defaults["seed"] = given["seed"] + request.choice
    return replace(request, sampling={**defaults, **request.sampling}) if defaults else request


def _read(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise MessageError(f"{file} cannot be read: {error.strerror}") from error
    return data.decode("utf-8-sig", "replace")


@contextmanager
def _progress_bar(run: BatchRun, is_hidden: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, if it is a terminal. Yields the function to call for each result."""
    from rich import progress
    from rich.text import Text

    from mlx_qwen3.cli.console import SafeConsole

    console, start = SafeConsole(stderr=True), time.perf_counter()

    class SpeedColumn(progress.ProgressColumn):
        def render(self, _: progress.Task) -> Text:
            rate = run.tokens / (time.perf_counter() - start)
            return Text(f"{run.tokens:,} tokens, {rate:,.0f}/s")

    with progress.Progress(
        progress.TextColumn("generating"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        SpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=is_hidden or not console.is_terminal,
    ) as bars:
        task = bars.add_task("", total=run.total)
        yield lambda: bars.advance(task)
    if console.is_terminal:
        seconds = time.perf_counter() - start
        console.print(f"{run.total:,} texts, {run.tokens:,} tokens in {seconds:.1f} s")
