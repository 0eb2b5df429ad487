"""Loading an engine: it says how far it is, can be cancelled at any moment, and works in asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import Hub, hub  # noqa: F401  # a fixture
from scripted import write_byte_tokenizer

from mlx_qwen3 import Engine, LoadProgress
from mlx_qwen3.errors import EngineError, LoadCancelledError, ModelNotFoundError


@pytest.fixture
def model(hub: Hub, tmp_path: Path) -> str:  # noqa: F811
    """The name of a model on a hub of our own, which an engine can use."""
    folder = write_byte_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (folder / name).exists():
            (hub.folder / name).write_bytes((folder / name).read_bytes())
    return "org/tiny"


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mlx_qwen3 engine"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = engine_threads()  # of engines that other tests share
    yield
    assert [thread for thread in engine_threads() if thread not in before] == []


def test_the_download_and_the_loading_are_told_on_one_thread(model: str) -> None:
    seen: list[LoadProgress] = []
    threads = set()

    def on_progress(progress: LoadProgress) -> None:
        seen.append(progress)
        threads.add(threading.current_thread().name)

    with Engine.load(model, on_progress=on_progress, draft_model=None) as engine:
        assert engine.is_loaded
    stages = [progress.stage for progress in seen]
    assert stages == sorted(stages)  # downloading, then loading
    assert set(stages) == {"downloading", "loading"}
    assert threads == {"mlx_qwen3 engine"}
    for stage in set(stages):
        done = [progress.fraction for progress in seen if progress.stage == stage]
        assert done == sorted(done)
        assert done[-1] == 1
    seen.clear()
    with Engine(model, on_progress=seen.append, draft_model=None):
        assert {progress.stage for progress in seen} == {"loading"}


@pytest.mark.parametrize("stage", ["downloading", "loading"])
def test_loading_can_be_cancelled_in_each_stage(model: str, hub: Hub, stage: str) -> None:  # noqa: F811
    hub.pause = 0.01 if stage == "downloading" else 0
    cancel = threading.Event()

    def on_progress(progress: LoadProgress) -> None:
        if progress.stage == stage:
            cancel.set()

    with pytest.raises(LoadCancelledError):
        Engine(model, on_progress=on_progress, cancel=cancel)
    hub.pause = 0
    with Engine(model) as engine:
        assert engine.session(sampling={"max_tokens": 2}).ask("hi").stats.generated_tokens


def test_what_is_cancelled_beforehand_reads_nothing(model: str, hub: Hub) -> None:  # noqa: F811
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(LoadCancelledError):
        Engine("demo", cancel=cancel)
    with pytest.raises(LoadCancelledError):
        Engine(model, cancel=cancel)
    assert "model.safetensors" not in hub.downloads


def test_an_engine_in_asyncio(model: str) -> None:
    async def run() -> tuple[set[str], set[str]]:
        stages, threads = set(), set()

        def on_progress(progress: LoadProgress) -> None:
            stages.add(progress.stage)
            threads.add(threading.current_thread().name)

        engine = await Engine.aload(model, on_progress=on_progress, draft_model=None)
        with engine:
            assert isinstance(engine, Engine)
        return stages, threads

    assert asyncio.run(run()) == ({"downloading", "loading"}, {threading.current_thread().name})


def test_a_cancelled_task_ends_the_loading(model: str, hub: Hub) -> None:  # noqa: F811
    hub.pause = 0.01

    async def run() -> None:
        task: asyncio.Task[Engine]

        def on_progress(progress: LoadProgress) -> None:
            task.cancel()

        task = asyncio.create_task(Engine.aload(model, on_progress=on_progress))
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())


def test_a_callback_that_fails_is_named() -> None:
    def on_progress(progress: LoadProgress) -> None:
        raise RuntimeError("a bug of the app")

    with pytest.raises(EngineError, match="on_progress failed: a bug of the app"):
        Engine("demo", on_progress=on_progress)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_progress": 3}, "on_progress must be a function or None, not 3"),
        ({"cancel": True}, "cancel must be a threading.Event or None, not True"),
        ({"models_dir": 3}, "models_dir must be a folder or None, not 3"),
        ({"revision": 3}, "revision must be a name or None, not 3"),
        ({"revision": "v1", "distributed": "tensor"}, "over several machines"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        Engine("demo", **options)  # type: ignore[arg-type]
    if "distributed" not in options:
        with pytest.raises(EngineError, match=message):
            asyncio.run(Engine.aload("demo", **options))


def test_a_folder_for_models_and_a_revision(model: str, hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    with Engine(model, models_dir=tmp_path / "app", revision="v1") as engine:
        assert tmp_path / "app" in engine.folder.parents
        assert engine.options["revision"] == "v1"
    with pytest.raises(ModelNotFoundError, match="a revision can only be given for a model of the hub"):
        Engine("demo", revision="v1")
