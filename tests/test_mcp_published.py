"""Servers other people published, each in an environment of its own, from a Claude Desktop file.

They are fetched from the package index, so this runs only where asked for:

    MLX_QWEN3_NETWORK_TESTS=1 pytest tests/test_mcp_published.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="needs the extra mcp")

from mlx_qwen3.events import ToolCall
from mlx_qwen3.tools import Decision, ToolBox
from mlx_qwen3.tools.mcp import MCPServers, load_config

pytestmark = pytest.mark.skipif(
    os.environ.get("MLX_QWEN3_NETWORK_TESTS") != "1",
    reason="fetches packages; set MLX_QWEN3_NETWORK_TESTS=1",
)


def install(package: str, folder: Path) -> Path:
    """The package's command, in a virtual environment of its own."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    fetched = subprocess.run(
        [folder / "bin" / "pip", "install", "-q", package], capture_output=True, text=True
    )
    if fetched.returncode:
        reason = (fetched.stderr.strip().splitlines() or ["unknown"])[-1]
        pytest.skip(f"cannot fetch {package}: {reason}")
    return folder / "bin" / package


def test_published_servers_work_from_a_desktop_file(tmp_path):
    commands = {name: install(f"mcp-server-{name}", tmp_path / name) for name in ("time", "git")}
    subprocess.run(["git", "init", "-q", "repository"], cwd=tmp_path, check=True)
    entries = {
        "time": {"command": str(commands["time"]), "args": ["--local-timezone", "Europe/Paris"]},
        "git": {"command": str(commands["git"]), "args": ["--repository", "${FOLDER}/repository"]},
    }
    file = tmp_path / "claude_desktop_config.json"
    file.write_text(json.dumps({"mcpServers": entries}))
    configs = load_config(file, {"FOLDER": str(tmp_path)})
    with MCPServers(configs, log_folder=tmp_path / "logs") as servers:
        assert [(status.state, status.problem) for status in servers.statuses] == [("ready", "")] * 2
        time, git = ToolBox(sources=[servers]).run(
            [
                ToolCall(0, "get_current_time", {"timezone": "Asia/Tokyo"}, ""),
                ToolCall(1, "git_status", {"repo_path": str(tmp_path / "repository")}, ""),
            ],
            lambda request: Decision(True),
        )
    assert not time.is_error
    assert "Asia/Tokyo" in time.text
    assert not git.is_error
    assert "No commits yet" in git.text
