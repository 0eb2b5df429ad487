"""Killed at random moments, a conversion leaves no output or a complete one; the next one goes on from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tiny_checkpoints import DENSE, write_checkpoint

NUM_MOMENTS = 20
# One process imports everything once and has a copy of itself, which has not touched MLX yet, do each
# conversion. Every other conversion is killed a second time, while it goes on. The moments are moments of a
# conversion's processor time, however busy the machine: the kernel sends a signal that nothing handles.
PROGRAM = """
import json, os, random, signal, sys, traceback
from pathlib import Path
import mlx_qwen3.conversion.verification.probe as probe
import mlx_qwen3.conversion.source.chunks as chunks
from mlx_qwen3.conversion import convert

chunks.chunk_bytes = lambda: 20_000
probe.MAX_TOKENS = 8
source, folder, moments = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
generator = random.Random(int(sys.argv[4]))

def converting(output, seconds=0):
    '''Convert in a child, killed after `seconds`; whether it came to its end, and the time it took.'''
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            convert(source, output, max_shard_bytes=60_000)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
    assert is_killed or status == 0, status
    return not is_killed, used.ru_utime + used.ru_stime

def contents(output):
    return {file.name: file.read_bytes() for file in output.iterdir()}

ended, duration = converting(folder / 'whole' / 'out')
assert ended
whole = contents(folder / 'whole' / 'out')
found = []
for moment in range(moments):
    output = folder / str(moment) / 'out'
    output.parent.mkdir()
    kept = 0
    for _ in range(1 + moment % 2):
        if converting(output, generator.uniform(0.001, 1.1) * duration)[0]:
            break
        if output.exists():  # killed after the folder was put in place
            break
        kept = max(kept, len(list(output.parent.glob('.out.partial/*.safetensors'))))
    if not output.exists():
        assert converting(output)[0]
    assert contents(output) == whole, moment
    assert [path.name for path in output.parent.iterdir()] == ['out'], moment
    found.append(kept)
print(json.dumps(found))
"""


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    """A folder in memory if the system has one, because a thousand files are flushed to the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.mark.cpu_only(reason="it forks, and Metal does not outlive a fork")
def test_twenty_moments(fast_folder):
    source = fast_folder / "source"
    write_checkpoint(source, DENSE)
    command = [sys.executable, "-c", PROGRAM, source, fast_folder, NUM_MOMENTS, 0]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    kept = json.loads(done.stdout)
    assert len(kept) == NUM_MOMENTS
    assert len(set(kept)) > 2, "moments were not spread over the conversion"
