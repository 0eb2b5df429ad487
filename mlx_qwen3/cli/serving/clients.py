"""What to give each client so that it uses this server: a config to paste, or variables to set."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlx_qwen3.errors import ConfigError

NO_KEY = "none"
"""What clients send that want a key where the server has none."""
# Milliseconds. Clients made for data centres give up while a Mac still reads a long prompt.
PATIENCE = 3_600_000


@dataclass(frozen=True)
class Connection:
    """Where the server is. key: what to send as API key. context: tokens of the model's context, if known."""

    url: str
    model: str
    key: str = NO_KEY
    context: int | None = None

    @property
    def api(self) -> str:
        """The base URL of OpenAI's APIs."""
        return f"{self.url}/v1"


def client_config(
    client: str, url: str, model: str, key: str | None = None, context: int | None = None
) -> str:
    """What to paste for `client`. Raises ConfigError for a client that is not in CLIENTS."""
    make = CLIENTS.get(client)
    if make is None:
        raise ConfigError(f"there is no config for {client!r}; there is one for {', '.join(CLIENTS)}")
    return make(Connection(url.rstrip("/"), model, key or NO_KEY, context))


def _claude_code(to: Connection) -> str:
    variables = {
        "ANTHROPIC_BASE_URL": to.url,
        "ANTHROPIC_AUTH_TOKEN": to.key,
        "ANTHROPIC_MODEL": to.model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": to.model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": to.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": to.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "API_TIMEOUT_MS": str(PATIENCE),
    }
    if to.context is not None:
        variables["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(to.context)
    return "# In the shell that starts Claude Code:\n" + _exports(variables) + "\nclaude"


def _codex(to: Connection) -> str:
    key = (
        f"# Before you start Codex: export MLX_QWEN3_API_KEY={shlex.quote(to.key)}\n"
        if to.key != NO_KEY
        else ""
    )
    env_key = 'env_key = "MLX_QWEN3_API_KEY"\n' if to.key != NO_KEY else ""
    context = f"model_context_window = {to.context}\n" if to.context is not None else ""
    return f"""# In ~/.codex/config.toml, then: codex
{key}model = {json.dumps(to.model)}
model_provider = "mlx-qwen3"
{context}web_search = "disabled"

[model_providers.mlx-qwen3]
name = "mlx-qwen3"
base_url = {json.dumps(to.api)}
wire_api = "responses"
{env_key}stream_idle_timeout_ms = {PATIENCE}"""


def _qwen_code(to: Connection) -> str:
    variables = {"OPENAI_BASE_URL": to.api, "OPENAI_API_KEY": to.key, "OPENAI_MODEL": to.model}
    return "# In the shell that starts qwen-code:\n" + _exports(variables) + "\nqwen --auth-type openai"


def _continue(to: Connection) -> str:
    return f"""# In ~/.continue/config.yaml
name: mlx-qwen3
version: 1.0.0
schema: v1
models:
  - name: {json.dumps(to.model)}
    provider: openai
    model: {json.dumps(to.model)}
    apiBase: {json.dumps(to.api)}
    apiKey: {json.dumps(to.key)}
    roles: [chat, edit, apply]
    capabilities: [tool_use]"""


def _zed(to: Connection) -> str:
    model = {
        "name": to.model,
        "display_name": f"{to.model} (mlx-qwen3)",
        "max_tokens": to.context or 32768,
        "capabilities": {
            "tools": True,
            "images": False,
            "parallel_tool_calls": True,
            "prompt_cache_key": False,
        },
    }
    provider = {"api_url": to.api, "available_models": [model]}
    settings = {"language_models": {"openai_compatible": {"mlx-qwen3": provider}}}
    head = "// In Zed's settings.json. Zed asks for the key in its agent's settings, or reads it from\n"
    return f"{head}// the variable MLX_QWEN3_API_KEY; here it is: {to.key}\n{json.dumps(settings, indent=2)}"


def _openai_python(to: Connection) -> str:
    return f"""from openai import OpenAI

client = OpenAI(base_url={to.api!r}, api_key={to.key!r})
answer = client.chat.completions.create(
    model={to.model!r},
    messages=[{{"role": "user", "content": "What is 47 + 85?"}}],
)
print(answer.choices[0].message.content)"""


def _llm(to: Connection) -> str:
    key = f"\n# Its key: llm keys set mlx-qwen3 --value {shlex.quote(to.key)}"
    return f"""# In extra-openai-models.yaml in the folder that `dirname "$(llm logs path)"` prints.{key}
- model_id: mlx-qwen3
  model_name: {json.dumps(to.model)}
  api_base: {json.dumps(to.api)}
  api_key_name: mlx-qwen3
  supports_tools: true
  supports_schema: true
# Then: llm -m mlx-qwen3 'What is 47 + 85?'"""


def _open_webui(to: Connection) -> str:
    inside = to.api.replace("127.0.0.1", "host.docker.internal")
    variables = {"OPENAI_API_BASE_URL": to.api, "OPENAI_API_KEY": to.key, "ENABLE_OLLAMA_API": "false"}
    return (
        "# Open WebUI installed by pip:\n"
        + _exports(variables)
        + "\nopen-webui serve\n\n# Or in Docker:\n"
        + f"docker run -d -p 3000:8080 -e OPENAI_API_BASE_URL={shlex.quote(inside)} "
        + f"-e OPENAI_API_KEY={shlex.quote(to.key)} -e ENABLE_OLLAMA_API=false \\\n"
        + "  -v open-webui:/app/backend/data --name open-webui ghcr.io/open-webui/open-webui:main"
    )


def _exports(variables: Mapping[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


CLIENTS: dict[str, Callable[[Connection], str]] = {
    "claude-code": _claude_code,
    "codex": _codex,
    "qwen-code": _qwen_code,
    "continue": _continue,
    "zed": _zed,
    "openai-python": _openai_python,
    "llm": _llm,
    "open-webui": _open_webui,
}
