"""Real clients against a real server with the demo: chat, streams, tools to the end, schemas, errors, cancel.

Those of OpenAI and Anthropic for Python are among the packages of the tests. `tests/clients/run.sh` installs
the others, and runs this with their interpreters in MLX_QWEN3_CLIENTS_PYTHON and MLX_QWEN3_CLIENTS_NODE.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, live_server

from mlx_qwen3.cli.serving.clients import client_config
from mlx_qwen3.engine.request import params_for
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.server.config import ServerConfig
from mlx_qwen3.server.generation import prompts
from mlx_qwen3.tokenizer import Tokenizer

PROGRAMS = Path(__file__).with_name("programs")
PYTHON = {
    "openai_sdk": "openai",
    "anthropic_sdk": "anthropic",
    "litellm_sdk": "litellm",
    "langchain_sdk": "langchain_openai",
    "pydantic_ai_sdk": "pydantic_ai",
    "openai_agents_sdk": "agents",
    "llm_cli": "llm",
}
NODE = {"openai_node": "openai", "anthropic_node": "@anthropic-ai/sdk", "vercel_ai": "ai"}
QUESTION, TIME = "what time is it in Paris?", "14:05"
SECONDS = 280
# After it no further client is started.
DEADLINE = time.monotonic() + float(os.environ.get("MLX_QWEN3_CLIENTS_SECONDS", "inf"))


@pytest.fixture(autouse=True)
def begins_in_time() -> None:
    if time.monotonic() > DEADLINE:
        pytest.skip("no time was left for it")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The demo, which says the same each time to clients that do not say how to choose words."""

    def greedy(tokenizer: Tokenizer, thinking: bool, sampling: Mapping[str, Any]) -> SamplingParams:
        return params_for(tokenizer, thinking, {"temperature": 0, **sampling})

    config = ServerConfig(cache_folder=tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch, live_server(config) as running:
        patch.setattr(prompts, "params_for", greedy)
        yield running


def run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a client printed. Fails with it if the client did."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("program", PYTHON)
def test_python(server: LiveServer, program: str, tmp_path: Path) -> None:
    python = os.environ.get("MLX_QWEN3_CLIENTS_PYTHON")
    if find_spec(PYTHON[program]) is not None:
        python = sys.executable
    elif python is None:
        pytest.skip(f"{PYTHON[program]} is not installed: tests/clients/run.sh installs it")
    config = client_config("llm", server.url, "demo")
    shown = run([python, str(PROGRAMS / f"{program}.py"), server.url, config], tmp_path)
    assert shown.count("ok ") >= 4


def node_folder() -> Path:
    folder = os.environ.get("MLX_QWEN3_CLIENTS_NODE")
    if folder is None or shutil.which("node") is None:
        pytest.skip("clients for Node are not installed: tests/clients/run.sh installs them")
    return Path(folder)


@pytest.mark.parametrize("program", NODE)
def test_node(server: LiveServer, program: str, tmp_path: Path) -> None:
    modules = node_folder() / "node_modules"
    if not (modules / NODE[program]).exists():
        pytest.skip(f"{NODE[program]} is not installed")
    for name in (program, "task"):  # a module finds packages beside itself alone
        shutil.copy(PROGRAMS / f"{name}.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    assert run(["node", f"{program}.mjs", server.url], tmp_path).count("ok ") >= 4


def ask_by_command(
    client: str, server: LiveServer, folder: Path, files: Mapping[str, str], *arguments: str
) -> str:
    """What the command line says of the time, with the config that is printed for it and an MCP server."""
    program = node_folder() / "node_modules" / ".bin" / arguments[0]
    if not program.exists():
        pytest.skip(f"{program.name} is not installed")
    for name, text in {"instructions.md": "Be brief.", **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    config = client_config(client, server.url, "demo").splitlines()
    exports = [line.removeprefix("export ").split("=", 1) for line in config if line.startswith("export ")]
    environment = {"HOME": str(folder), "QWEN_SYSTEM_MD": str(folder / "instructions.md"), **dict(exports)}
    return run([str(program), *arguments[1:]], folder, environment)


def clock(folder: Path) -> dict[str, Any]:
    """The MCP server that all command lines get."""
    return {
        "command": sys.executable,
        "args": [str(PROGRAMS / "clock_mcp.py"), str(folder / "calls")],
    }


def test_claude_code(server: LiveServer, tmp_path: Path) -> None:
    servers = json.dumps({"mcpServers": {"clock": clock(tmp_path)}})
    shown = ask_by_command(
        "claude-code",
        server,
        tmp_path,
        {"mcp.json": servers},
        *("claude", "-p", QUESTION, "--system-prompt", "Be brief."),
        *("--tools", "", "--strict-mcp-config", "--mcp-config", "mcp.json", "--output-format", "json"),
        *("--allowedTools", "mcp__clock__get_time"),
    )
    told = json.loads(shown)
    assert not told["is_error"]
    assert (tmp_path / "calls").exists()
    assert TIME in told["result"]
    assert told["usage"]["cache_read_input_tokens"] > 0


def test_codex(server: LiveServer, tmp_path: Path) -> None:
    shown = ask_by_command(
        "codex",
        server,
        tmp_path,
        {".codex/config.toml": client_config("codex", server.url, "demo")},
        *("codex", "exec", "--skip-git-repo-check"),
        *("-c", "model_instructions_file=instructions.md", "-c", "skills.include_instructions=false"),
        *("-c", "features.multi_agent=false", "what is 47+85?"),
    )
    assert shown.strip()  # its tools confuse the demo


def test_qwen_code(server: LiveServer, tmp_path: Path) -> None:
    # With a prompt that confuses it, the demo goes on for long.
    settings = {"model": {"generationConfig": {"samplingParams": {"max_tokens": 200}}}}
    shown = ask_by_command(
        "qwen-code",
        server,
        tmp_path,
        {".qwen/settings.json": json.dumps(settings)},
        *("qwen", "--auth-type", "openai", "--core-tools", "read_file"),
        *("-p", "what is 47+85?"),
    )
    assert shown.strip()
