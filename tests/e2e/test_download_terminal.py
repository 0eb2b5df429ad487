"""Downloads at a terminal: one bar with bytes and the time left; Ctrl-C stops, and the next one goes on."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pexpect
import pytest
from local_hub import Hub, hub  # noqa: F401  # a fixture

ROOT = Path(__file__).parent.parent.parent


COMMANDS = [["pull", "org/tiny"], ["chat", "--model", "org/tiny"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_ctrl_c_stops_a_download(command: list[str], hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    hub.pause = 0.1
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HOME": str(tmp_path),
        "TERM": "xterm-256color",
    }
    child = pexpect.spawn(
        sys.executable,
        ["-m", "mlx_qwen3", *command],
        env=environment,
        dimensions=(30, 100),
        timeout=60,
        cwd=ROOT,
        encoding="utf-8",
    )
    child.expect(r"downloading.*/1\.3 MB.*[kM]?B/s.*\d:\d\d:\d\d")
    while not list(tmp_path.rglob("*.partial")):
        time.sleep(0.01)
    child.sendintr()
    child.expect(r"download stopped, (\d\.\d) of 1\.3 MB are here; the same command goes on from there")
    child.expect(pexpect.EOF)
    assert "Traceback" not in child.before
    child.close()
    assert child.exitstatus == 130
    (part,) = tmp_path.rglob("*.partial")
    size = part.stat().st_size
    assert 0 < size < 1_339_156
    if command[0] == "pull":
        hub.pause = 0
        output, status = pexpect.run(
            f"{sys.executable} -m mlx_qwen3 pull org/tiny", env=environment, cwd=ROOT, withexitstatus=True
        )
        assert status == 0
        assert hub.ranges == [size]
        assert re.search(r"chat with it: \S*mlx-qwen3 chat --model org/tiny", output.decode())
