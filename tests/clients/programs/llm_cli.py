"""Simon Willison's llm, on its command line, with the config that the server prints for it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from task import LONG, QUESTION, RESULT, SUM, TIME, check, is_idle

CONFIG = sys.argv[2]
TOOL = f'def get_time(city: str) -> str:\n    "Get the current time in a city"\n    return "{TIME}"\n'

with tempfile.TemporaryDirectory() as folder:
    Path(folder, "extra-openai-models.yaml").write_text(CONFIG, encoding="utf-8")
    # Its models of embeddings are OpenAI's alone, by OpenAI's names.
    environment = os.environ | {"LLM_USER_PATH": folder}
    command = [sys.executable, "-m", "llm"]

    def llm(*arguments):
        done = subprocess.run(
            [*command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=250,
        )
        return done.stdout + done.stderr

    llm("keys", "set", "mlx-qwen3", "--value", "none")
    answer = llm("-m", "mlx-qwen3", "--no-stream", SUM)
    check("chat", RESULT in answer, answer)
    answer = llm("-m", "mlx-qwen3", SUM)
    check("stream", RESULT in answer, answer)
    answer = llm("-m", "mlx-qwen3", "--functions", TOOL, "-o", "temperature", "0", QUESTION)
    check("tools to the end", TIME in answer, answer)
    answer = llm("-m", "mlx-qwen3", "--schema", "sum int", SUM)
    check("schema", '"sum"' in answer, answer)
    answer = llm("-m", "mlx-qwen3", "-o", "max_tokens", "-5", SUM)
    check("error", "max_tokens" in answer, answer)
    with subprocess.Popen(
        [*command, "-m", "mlx-qwen3", LONG], env=environment, stdout=subprocess.PIPE
    ) as begun:
        begun.stdout.read(1)
        begun.send_signal(signal.SIGINT)
    check("cancel", is_idle())
