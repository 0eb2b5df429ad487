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
COMMANDS = {
    # The demo's context is short: what these say to a model by default does not fit it.
    "claude-code": ["claude", "-p", "what is 47+85?", "--system-prompt", "Be brief.", "--tools", ""],
    "codex": [
        *("codex", "exec", "--skip-git-repo-check", "-c", "model_instructions_file=instructions.md"),
        *("-c", "features.multi_agent=false", "-c", "skills.include_instructions=false", "what is 47+85?"),
    ],
    "qwen-code": [*("qwen", "--auth-type", "openai", "--core-tools", "read_file"), "-p", "what is 47+85?"],
}
SECONDS = 280


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


@pytest.mark.parametrize("client", COMMANDS)
def test_command_lines_with_the_config_that_is_printed_for_them(
    server: LiveServer, client: str, tmp_path: Path
) -> None:
    program = node_folder() / "node_modules" / ".bin" / COMMANDS[client][0]
    if not program.exists():
        pytest.skip(f"{program.name} is not installed")
    config = client_config(client, server.url, "demo")
    environment = {"HOME": str(tmp_path), "QWEN_SYSTEM_MD": str(tmp_path / "instructions.md")}
    (tmp_path / "instructions.md").write_text("Be brief.", encoding="utf-8")
    if client == "qwen-code":  # with a prompt that confuses it, the demo goes on for long
        settings = {"model": {"generationConfig": {"samplingParams": {"max_tokens": 200}}}}
        (tmp_path / ".qwen").mkdir()
        (tmp_path / ".qwen" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    if client == "codex":
        (tmp_path / ".codex").mkdir()
        (tmp_path / ".codex" / "config.toml").write_text(config, encoding="utf-8")
    else:
        exports = [line.removeprefix("export ") for line in config.splitlines() if line.startswith("export ")]
        environment |= dict(line.split("=", 1) for line in exports)
    shown = run([str(program), *COMMANDS[client][1:]], tmp_path, environment)
    assert shown.strip()
    if client == "claude-code":  # the others have tools that confuse the demo
        assert "132" in shown
