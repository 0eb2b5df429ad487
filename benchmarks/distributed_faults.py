"""Kills and stops ranks of a model over two ranks, and resumes their conversation on one.

Each run: two ranks, one turn of a conversation, saved; then, while a prompt is fed or while tokens come, one
rank is killed (SIGKILL) or stopped (SIGSTOP). The other has to end within 15 s with one line that names it. A
rank that was stopped goes on after that, and has to end likewise. No process may be left, and one rank alone
has to go on with the saved conversation. `benchmarks.distributed --faults` runs it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 15.0  # seconds for the others to end
HANGS = 60.0  # seconds after which a rank is taken to hang
QUESTION = "what is here?"
GREEDY = {"temperature": 0, "max_tokens": 12}


def worker(folder: str, mode: str, phase: str, saved: str) -> None:
    """One rank: a turn that is saved, then turns without end. Rank 0 says when they have begun."""
    from mlx_qwen3 import Engine
    from mlx_qwen3.errors import Qwen3Error

    with Engine(folder, distributed=mode, draft_model=None) as engine:
        session = engine.session(thinking=False, sampling=GREEDY)
        try:
            session.ask(QUESTION)
            session.save(saved)
            number = 0
            while True:
                later = session.branch()
                if phase == "prefill":  # no two prompts share more than the conversation so far
                    later.sampling = {"temperature": 0, "max_tokens": 1}
                    print("begun", flush=True)
                    later.ask(f"{number} " + "abc " * 1500)
                else:
                    later.sampling = {"temperature": 0, "max_tokens": 30_000, "min_tokens": 30_000}
                    for events, _ in enumerate(later.send(f"{number}"), 1):
                        if events == 4:
                            print("begun", flush=True)
                number += 1
        except Qwen3Error as error:
            sys.exit(f"error: {error}")


def run(count: int) -> int:
    """`count` runs of each kind of fault in each phase; returns how many did not end as they should."""
    sys.path.insert(0, str(ROOT / "tests"))
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import DENSE, write_checkpoint

    from mlx_qwen3 import Engine

    folder = Path(tempfile.mkdtemp())
    write_checkpoint(folder / "m", DENSE | {"vocab_size": 320})
    write_byte_tokenizer(folder / "m")
    slowest: dict[str, float] = {}
    failed = 0
    with Engine(folder / "m", draft_model=None) as alone:
        told = alone.session(thinking=False, sampling=GREEDY).ask(QUESTION).answer
        for blow in (signal.SIGKILL, signal.SIGSTOP):
            for phase in ("prefill", "decode"):
                for number in range(count):
                    mode, victim = ("tensor", "pipeline")[number % 2], number // 2 % 2
                    name = f"{blow.name} {phase}"
                    seconds, problem = _one(folder, mode, phase, victim, blow)
                    problem = problem or _resumed(alone, folder / "saved.json", told)
                    slowest[name] = max(slowest.get(name, 0.0), seconds)
                    failed += bool(problem)
                    print(f"{name} {number} {mode} rank {victim}: {seconds:.1f} s {problem}", flush=True)
    print(f"{4 * count} runs, {failed} not as they should be; slowest end:")
    for name, seconds in slowest.items():
        print(f"  {name}: {seconds:.1f} s")
    return failed


def _one(folder: Path, mode: str, phase: str, victim: int, blow: signal.Signals) -> tuple[float, str]:
    """Seconds until the other rank ended, and what was wrong."""
    from distributed.ranks import start_ranks

    saved = folder / "saved.json"
    saved.unlink(missing_ok=True)
    arguments = ["-m", "benchmarks.distributed", "--faults-worker"]
    mark = f"{os.getpid()}.{time.monotonic_ns()}"
    options = {"MLX_QWEN3_PLAIN": "1", "MLX_QWEN3_FAULTS_RUN": mark}
    ranks = start_ranks(2, folder, [*arguments, str(folder / "m"), mode, phase, str(saved)], **options)
    other = ranks[1 - victim]
    try:
        assert ranks[0].stdout is not None
        if ranks[0].stdout.readline() != "begun\n":
            return 0.0, f"did not begin: {ranks[0].communicate()[1]}"
        time.sleep(random.random())
        os.kill(ranks[victim].pid, blow)
        since = time.perf_counter()
        problem = _ending(other, victim)
        seconds = time.perf_counter() - since
        if not problem and seconds > LIMIT:
            problem = f"ended only after {seconds:.1f} s"
        if blow == signal.SIGSTOP:
            os.kill(ranks[victim].pid, signal.SIGCONT)
            problem = problem or _ending(ranks[victim])
        else:
            ranks[victim].communicate(timeout=HANGS)
        return seconds, problem or _left(mark)
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def _ending(rank: subprocess.Popen[str], lost: int | None = None) -> str:
    """Wait for a rank to end; what was wrong with it. lost: the rank that its line has to name."""
    try:
        _, error = rank.communicate(timeout=HANGS)
    except subprocess.TimeoutExpired:
        return "HANGS"
    # MLX's threads write lines of their own, piece by piece and at once.
    lines = [line for line in error.splitlines() if "error: " in line]
    named = "error: rank " if lost is None else f"error: rank {lost} ("
    if len(lines) != 1 or not lines[0].startswith(named):
        return f"it said {error!r}, exit code {rank.returncode}"
    return "" if rank.returncode == 1 else f"exit code {rank.returncode}"


def _left(mark: str) -> str:
    """Processes of this run that still live, after a moment."""
    for _ in range(20):
        if not (left := _marked(mark)):
            return ""
        time.sleep(0.1)
    return f"processes left: {left}"


def _marked(mark: str) -> list[int]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MLX_QWEN3_FAULTS_RUN") == mark:
                found.append(process.pid)
        except psutil.Error:
            pass
    return found


def _resumed(alone: Any, saved: Path, told: str) -> str:
    """Go on with the conversation on one rank; what was wrong."""
    from mlx_qwen3 import Session

    session = Session.load(alone, saved)
    if [message["content"] for message in session.messages] != [QUESTION, told]:
        return f"another conversation was saved: {session.messages}"
    reply = session.ask("and then?")
    return "" if reply.stats is not None and len(session.messages) == 4 else "it did not go on"
