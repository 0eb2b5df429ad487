"""What `serve --print-config` prints can be read by the client it is for."""

from __future__ import annotations

import json
import shlex
import tomllib
from typing import Any

import pytest
from typer.testing import CliRunner

from mlx_qwen3.cli.app import app
from mlx_qwen3.cli.serving.clients import CLIENTS, client_config
from mlx_qwen3.errors import ConfigError

URL, KEY = "http://127.0.0.1:9090", "k ey$(x)'\""
MODEL = 'Qwen/Qwen3-14B "4 bits"'


def exports(text: str) -> dict[str, str]:
    words = [shlex.split(line) for line in text.splitlines() if line.startswith("export ")]
    return dict(assignment.split("=", 1) for _, assignment in words)


def without_comments(text: str, mark: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(mark))


def test_variables_of_claude_code() -> None:
    set_ = exports(client_config("claude-code", URL, MODEL, KEY, context=40960))
    assert (set_["ANTHROPIC_BASE_URL"], set_["ANTHROPIC_AUTH_TOKEN"]) == (URL, KEY)
    assert {set_[name] for name in set_ if name.endswith("_MODEL")} == {MODEL}
    assert set_["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] == "40960"


def test_variables_of_qwen_code() -> None:
    set_ = exports(client_config("qwen-code", URL + "/", MODEL, KEY))
    assert set_ == {"OPENAI_BASE_URL": f"{URL}/v1", "OPENAI_API_KEY": KEY, "OPENAI_MODEL": MODEL}


@pytest.mark.parametrize("key", [None, KEY])
def test_codex_reads_toml(key: str | None) -> None:
    config = tomllib.loads(client_config("codex", URL, MODEL, key, context=40960))
    provider = config["model_providers"][config["model_provider"]]
    assert (config["model"], config["model_context_window"]) == (MODEL, 40960)
    assert (provider["base_url"], provider["wire_api"]) == (f"{URL}/v1", "responses")
    assert ("env_key" in provider) == (key is not None)


def test_zed_reads_json() -> None:
    config = json.loads(without_comments(client_config("zed", URL, MODEL, KEY), "//"))
    provider = config["language_models"]["openai_compatible"]["mlx-qwen3"]
    assert provider["api_url"] == f"{URL}/v1"
    assert provider["available_models"][0]["name"] == MODEL


@pytest.mark.parametrize("client", ["continue", "llm"])
def test_yaml(client: str) -> None:
    yaml = pytest.importorskip("yaml")
    config: Any = yaml.safe_load(client_config(client, URL, MODEL, KEY))
    if client == "continue":
        (model,) = config["models"]
        assert (model["model"], model["apiBase"], model["apiKey"]) == (MODEL, f"{URL}/v1", KEY)
    else:
        (model,) = config
        assert (model["model_name"], model["api_base"]) == (MODEL, f"{URL}/v1")


def test_python_is_a_program() -> None:
    code = compile(client_config("openai-python", URL, MODEL, KEY), "example", "exec")
    assert f"{URL}/v1" in code.co_consts
    assert MODEL in str(code.co_consts)


def test_open_webui() -> None:
    assert exports(client_config("open-webui", URL, MODEL, KEY))["OPENAI_API_BASE_URL"] == f"{URL}/v1"
    assert "host.docker.internal:9090/v1" in client_config("open-webui", URL, MODEL, KEY)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_command_prints_it(client: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "9090", "--print-config", client])
    assert result.exit_code == 0, result.output
    assert ":9090" in result.output
    assert "demo" in result.output or client == "open-webui"


def test_the_context_is_told() -> None:
    result = CliRunner().invoke(app, ["serve", "--context", "40960", "--print-config", "codex"])
    assert tomllib.loads(result.output)["model_context_window"] == 40960


def test_an_unknown_client_is_named() -> None:
    with pytest.raises(ConfigError, match=r"emacs.*claude-code"):
        client_config("emacs", URL, MODEL)
