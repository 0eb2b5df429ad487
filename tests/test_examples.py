"""The examples run: their parts without a user interface, on the demo model."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples import asyncio_app
from examples.menu_bar import Assistant
from mlx_qwen3 import Engine

ROOT = Path(__file__).parent.parent


def until(is_so: Callable[[], bool], calls: queue.SimpleQueue[Any]) -> None:
    """Run what was dispatched, until something is so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        calls.get(timeout=60)()


def test_a_loading_that_is_stopped_is_said(tmp_path: Path) -> None:
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    shown: list[str] = []
    assistant = Assistant(str(tmp_path), shown.append, calls.put)
    until(lambda: bool(shown), calls)
    assert shown[-1].startswith("Sorry: ")
    assistant.close()


def test_the_asyncio_example_runs_as_it_is_shipped() -> None:
    command = [sys.executable, "examples/asyncio_app.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "what is 147+230?\n" in done.stdout
    assert "377" in done.stdout
    assert done.stderr == ""


def test_the_recipe_of_the_app() -> None:
    """As far as can be seen without a Mac: what it names is there; what MLX and the sandbox need is said."""
    recipe = tomllib.loads((ROOT / "examples" / "pyproject.toml").read_text())["tool"]["briefcase"]
    (name, described), *others = recipe["app"].items()
    assert others == []
    (source,) = described["sources"]
    assert Path(source).name == name, "Briefcase starts the package of the app's name"
    for file in ("__init__.py", "__main__.py"):
        assert (ROOT / "examples" / source / file).is_file()
    package = described["requires"][0]
    assert (ROOT / "examples" / package / "mlx_qwen3").is_dir()
    assert all((ROOT / "examples" / file).is_file() for file in recipe["license-files"])
    mac = described["macOS"]
    assert not mac["universal_build"], "MLX has no wheels for Intel"
    assert float(mac["min_os_version"]) >= 14
    assert mac["entitlement"]["com.apple.security.network.client"]


def test_briefcase_takes_the_recipe_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    config = pytest.importorskip("briefcase.config", reason="needs briefcase, which makes apps")
    console = pytest.importorskip("briefcase.console", reason="needs briefcase, which makes apps")
    file = ROOT / "examples" / "pyproject.toml"
    _, apps = config.parse_config(file, platform="macOS", output_format="app", console=console.Console())
    (app,) = apps.values()
    made = config.AppConfig(**app)
    assert made.module_name == "menu_bar"
    assert "WARNING" not in capsys.readouterr().out


def test_the_menu_bar_assistant_shows_its_answer_on_the_thread_of_its_choice() -> None:
    shown: list[str] = []
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    assistant = Assistant("demo", shown.append, calls.put)
    assistant.ask("hello")
    assert shown == ["Still loading ..."], "nothing else may happen outside the main thread"
    until(lambda: shown[-1] == "Ask me something", calls)
    assert any(text.startswith("loading ") and text.endswith("%") for text in shown)
    for _ in range(2):
        shown.clear()
        assistant.ask("hello")
        assert shown == []
        until(lambda: bool(shown) and not shown[-1].endswith(" ..."), calls)
        assert shown[-1].strip()
        assistant.sleep()  # the next question loads the model again
    assistant.stop()
    assistant.close()
    assistant.ask("anyone there?")
    while not calls.empty() or "closed" not in shown[-1]:
        calls.get(timeout=60)()
    assert "closed" in shown[-1]


def test_the_asyncio_example_answers_every_question() -> None:
    async def run() -> list[str]:
        with Engine() as engine:
            return await asyncio.gather(*(asyncio_app.answer(engine, q) for q in asyncio_app.QUESTIONS))

    addition, greeting, question = asyncio.run(run())
    assert "377" in addition
    assert greeting.strip()
    assert "mlx-qwen3 convert" in question


def test_the_asyncio_example_stops_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> str:
        with Engine() as engine:
            return await asyncio_app.answer(engine, "hello", seconds=0)

    assert asyncio.run(run()).endswith("...")
