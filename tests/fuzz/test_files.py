"""Mutated files of all kinds: nothing but our errors, each one short printable line.

`benchmarks/fuzz.py` runs many more, in processes whose time and memory are measured.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fuzz.targets import Target, make_targets
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlx_qwen3.cli.errors import error_line
from mlx_qwen3.cli.output import error_text
from mlx_qwen3.errors import MAX_MESSAGE_CHARACTERS, is_hidden

SEEDS = Path(__file__).with_name("seeds.txt")
COUNT = 1000


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in make_targets(tmp_path_factory.mktemp("fuzz"))}


def check(target: Target, seed: int) -> None:
    started = time.process_time()
    error = target.run(target.mutated(seed))
    assert time.process_time() - started < 10, f"{target.name} {seed}"
    if error is not None:
        for line in (str(error), error_text(error_line(error))):
            assert len(line) <= MAX_MESSAGE_CHARACTERS, f"{target.name} {seed}"
            assert not any(map(is_hidden, line)), f"{target.name} {seed}"


def test_sound_files_are_read(targets: dict[str, Target]) -> None:
    for target in targets.values():
        assert target.run(target.sound) is None, target.name


def test_files_that_were_once_a_fault(targets: dict[str, Target]) -> None:
    for line in SEEDS.read_text().splitlines():
        name, _, seed = line.rpartition(" ")
        if name in targets and not line.startswith("#"):
            check(targets[name], int(seed))


def test_mutated_files_are_read_or_refused(targets: dict[str, Target]) -> None:
    choices = [name for name, target in targets.items() for _ in range(target.weight)]

    @settings(
        max_examples=int(os.environ.get("MLX_QWEN3_FUZZ_FILES", COUNT)),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # a seed cannot be made simpler
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(choices), st.integers(0, 2**32))
    def run(name: str, seed: int) -> None:
        check(targets[name], seed)

    run()
