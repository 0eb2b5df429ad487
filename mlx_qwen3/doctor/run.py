"""Runs the checks, all or the quick ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial

from mlx_qwen3.doctor import decoding, engines, logits, machine, products, storage
from mlx_qwen3.doctor.budgets import Budgets
from mlx_qwen3.doctor.command_buffers import CommandBuffers
from mlx_qwen3.doctor.report import Finding, Report
from mlx_qwen3.errors import BenchmarkError

Check = Callable[[], Iterable[str]]
MOST_PROBLEMS = 3  # of one check; what is wrong once is often wrong everywhere


def diagnose(
    quick: bool = False, only: Collection[str] | None = None, on_check: Callable[[str], object] = str
) -> Report:
    """Examine MLX's default device.

    Args:
        quick: A few seconds for what has gone wrong on machines before: attention, quantized products,
            sampling. Otherwise everything, in less than a minute.
        only: Names of the checks to make; None makes all.
        on_check: Called with the name of each check before it runs.

    Returns:
        What was found. Problems do not raise.

    Raises:
        BenchmarkError: There is no check of a name in `only`.
    """
    measured: dict[str, Budgets | CommandBuffers] = {}

    def measure(name: str, kind: type[Budgets | CommandBuffers]) -> Iterable[str]:
        measured[name] = kind()
        return measured[name].check()

    checks: dict[str, Check] = {
        "machine": machine.check_machine,
        "logits": partial(logits.check_logits, quick),
        "caches": partial(logits.check_caches, quick),
        "quantized products": partial(products.check_products, quick),
        "sampler": partial(decoding.check_sampler, quick),
        "batches": partial(logits.check_batches, quick),
    }
    names = list(checks) if only is None else list(only)  # the quick ones so far
    checks |= {
        "long contexts": logits.check_long_rows,
        "positions": logits.check_positions,
        "compiled step": decoding.check_compiled,
        "speculation": partial(decoding.check_speculation, quick),
        "saved caches": storage.check_saved_caches,
        "conversion": storage.check_conversion,
        "threads": engines.check_engines,
        "budgets": partial(measure, "budgets", Budgets),
        "command buffers": partial(measure, "command buffers", CommandBuffers),
    }
    if only is None and not quick:
        names = list(checks)
    if unknown := [name for name in names if name not in checks]:
        raise BenchmarkError(f"there is no check {unknown[0]!r}; there are {', '.join(checks)}")
    findings = []
    for name in names:
        on_check(name)
        finding = _examine(name, checks[name])
        findings.append(replace(finding, figures=measured[name].figures) if name in measured else finding)
    return Report(machine.describe(), tuple(findings))


def _examine(name: str, check: Check) -> Finding:
    start = time.perf_counter()
    problems: list[str] = []
    try:
        for problem in check():
            problems.append(problem)
            if len(problems) == MOST_PROBLEMS:
                break
    except Exception as error:  # noqa: BLE001  # a device that fails is what is looked for
        problems.append(f"it ended with {type(error).__name__}: {error}".splitlines()[0])
    return Finding(name, tuple(problems), seconds=time.perf_counter() - start)
