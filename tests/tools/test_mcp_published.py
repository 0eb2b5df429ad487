"""Servers other people published, each in an environment of its own, from a Claude Desktop file.

They are fetched from the package index once and kept in pytest's cache folder. Where no index can be
reached this is skipped; a package that cannot be installed, or does not work, is a failure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="needs the extra mcp")

from mlx_qwen3.events import ToolCall
from mlx_qwen3.tools import Decision, ToolBox
from mlx_qwen3.tools.mcp import MCPServers, load_config

# One on the SDK's first version, as many published servers still are, and one on whichever is current.
SERVERS = {"time": ["mcp-server-time", "mcp<2"], "git": ["mcp-server-git"]}
INSTALL_SECONDS = 180
# How pip says that it could not reach the index, or that the connection broke.
NO_NETWORK = re.compile(
    r"NewConnectionError|Connection(Reset|Refused)?Error|Connect(ion)?Timeout|ReadTimeout|ProxyError"
    r"|timed out|Name or service not known|name resolution|Network is unreachable|Could not fetch URL"
    r"|IncompleteRead"
)


def install(folder: Path, requirements: list[str]) -> str:
    """Put the packages into an environment at `folder`; why that could not be done, or nothing."""
    if (folder / "complete").exists():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--no-compile"]
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    try:
        done = subprocess.run(
            [*pip, *options, *requirements], capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"the connection timed out: {requirements[0]} was not there after {INSTALL_SECONDS} s"
    if done.returncode == 0:
        (folder / "complete").touch()
    return done.stderr if done.returncode else ""


@pytest.fixture(scope="module")
def commands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The command of each published server."""
    cache = getattr(request.config, "cache", None)  # `-p no:cacheprovider` takes it away
    name = "published-mcp-servers"
    home = Path(cache.mkdir(name) if cache is not None else tmp_path_factory.mktemp(name))
    home /= f"{sys.version_info[0]}.{sys.version_info[1]}"
    with ThreadPoolExecutor(len(SERVERS)) as pool:
        problems = list(pool.map(lambda item: install(home / item[0], item[1]), SERVERS.items()))
    for problem in filter(None, problems):
        if NO_NETWORK.search(problem):
            pytest.skip(f"no package index can be reached: {problem.strip().splitlines()[-1]}")
        pytest.fail(problem)
    return {name: home / name / "bin" / packages[0] for name, packages in SERVERS.items()}


def test_published_servers_work_from_a_desktop_file(commands: dict[str, Path], tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("said", "is_network"),
    [
        ("ERROR: Could not find a version that satisfies the requirement x (from versions: 1.0)", False),
        ("ERROR: Cannot install x and y: ResolutionImpossible", False),
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'\nERROR: No matching", True),
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.", True),
    ],
)
def test_only_a_missing_network_excuses(said: str, is_network: bool) -> None:
    assert bool(NO_NETWORK.search(said)) is is_network
