"""mlx-lm's own tests, from its source distribution, run on our model and caches or on mlx-lm's.

As a program it runs them and prints a JSON object, test -> "passed", "skipped" or the first line of what went
wrong: in a process of its own, because they start servers, and let threads end by exceptions.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import unittest
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

SELECTED = {
    "test_prompt_cache": [""],
    "test_generate": [""],
    "test_server": [""],
    "test_tuner_utils": [""],
    "test_tuner_trainer": ["iterate_batches", "qwen3_moe"],
    "test_finetune": ["llama", "lora_embedding", "TestDora", "evaluate"],
    "test_models": [
        "test_qwen3_moe",
        "test_qwen3",
        "test_kv_cache",
        "test_rotating_kv_cache",
        "quantized_kv",
    ],
}
"""Modules about what our classes take part in, and parts of the names of their tests; "" is all of them."""

OTHER_MODELS = ("gated_delta", "ssm", "sliding_window", "qwen3_next", "qwen3_5", "qwen3_vl")


def download(folder: Path) -> Path | None:
    """The folder of tests of the mlx-lm that is installed, fetched once; None without a package index."""
    tests = folder / f"mlx_lm-{version('mlx-lm')}" / "tests"
    if not tests.is_dir():
        wanted = f"mlx-lm=={version('mlx-lm')}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "mlx-lm"]
        limits = ["--retries", "0", "--timeout", "10", "--dest", str(folder)]
        try:
            subprocess.run([*pip, *limits, wanted], check=True, capture_output=True, timeout=60)
        except (subprocess.SubprocessError, OSError):
            return None
        with tarfile.open(next(folder.glob("mlx_lm-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    return tests


def run(tests: Path, on_ours: bool) -> dict[str, str]:
    """The outcome of the selected tests, from a new process."""
    command = [sys.executable, __file__, str(tests), "ours" if on_ours else "theirs"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # several would spin beside other tests
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


class Outcomes(unittest.TestResult):
    """Collects how each test ended; what a class could not set up fails all of its tests."""

    def __init__(self) -> None:
        super().__init__()
        self.by_test: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.by_test.setdefault(_name(test), "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.by_test[_name(test)] = "skipped"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.by_test[_name(test)] = f"{err[0].__name__}: {err[1]}".splitlines()[0]

    addError = addFailure  # noqa: N815


def _name(test: unittest.TestCase) -> str:
    return test.id().removeprefix("mlx_lm_tests_")


def _cases(suite: Iterable[Any]) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestCase):
            yield item
        else:
            yield from _cases(item)


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mlx_lm_tests_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _use_demo(on_ours: bool) -> None:
    """`mlx_lm.load` of any name gives the demo model: ours with our tokenizer, or mlx-lm's with its own."""
    import mlx_qwen3  # isort: skip
    import mlx_lm.utils
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    demo = Path(mlx_qwen3.__file__).parent / "demo"
    load: Callable[..., Any] = mlx_lm.utils.load

    def load_demo(*_: Any, **__: Any) -> Any:
        if not on_ours:
            return load(str(demo))
        return mlx_qwen3.load_model("demo"), TokenizerWrapper(mlx_qwen3.load_tokenizer("demo"))

    mlx_lm.utils.load = load_demo
    if on_ours:
        _replace_models()


def _replace_models() -> None:
    """mlx-lm's Qwen3 and Llama are ours, of the same config."""
    from mlx_lm.models import llama, qwen3, qwen3_moe

    from mlx_qwen3.model.config import ModelConfig
    from mlx_qwen3.model.qwen3 import Model

    for module, kind in ((qwen3, "qwen3"), (qwen3_moe, "qwen3_moe"), (llama, "qwen3")):

        def build(args: Any, kind: str = kind) -> Model:
            raw = {name: value for name, value in vars(args).items() if value is not None}
            raw.setdefault("head_dim", raw["hidden_size"] // raw["num_attention_heads"])
            raw.setdefault("max_position_embeddings", 2048)
            return Model(ModelConfig.from_dict({**raw, "model_type": kind}))

        module.Model = build


def _replace_caches(module: ModuleType) -> None:
    """The module's cache classes are ours, and windows keep no first tokens unless asked, as mlx-lm's."""
    from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
    from mlx_qwen3.cache.window.rotating import RotatingKVCache

    class Window(RotatingKVCache):
        def __init__(self, max_size: int, keep: int = 0) -> None:
            super().__init__(max_size, keep)

    Window.__name__ = "RotatingKVCache"
    ours = {"KVCache": KVCache, "QuantizedKVCache": QuantizedKVCache, "RotatingKVCache": Window}
    for name, cls in ours.items():
        if hasattr(module, name):
            setattr(module, name, cls)


def main(tests: Path, on_ours: bool) -> None:
    _use_demo(on_ours)
    outcomes = Outcomes()
    for stem, parts in SELECTED.items():
        module = _load_module(tests / f"{stem}.py")
        # In test_generate, caches come back out of mlx-lm's batches, which are of mlx-lm's classes.
        if on_ours and stem != "test_generate":
            _replace_caches(module)
        if stem == "test_prompt_cache":  # it asks the tokenizer for transformers' `return_tensors`
            own = importlib.import_module("mlx_lm.tokenizer_utils").load(_demo_folder())
            module.load = _with_tokenizer(module.load, own)  # type: ignore[attr-defined]
        loaded = unittest.defaultTestLoader.loadTestsFromModule(module)
        chosen = [case for case in _cases(loaded) if _is_selected(case.id(), parts)]
        with mock.patch("sys.stdout", sys.stderr):
            unittest.TestSuite(chosen).run(outcomes)
    print(json.dumps(outcomes.by_test))


def _is_selected(name: str, parts: list[str]) -> bool:
    return any(part in name for part in parts) and not any(other in name for other in OTHER_MODELS)


def _demo_folder() -> Path:
    import mlx_qwen3

    return Path(mlx_qwen3.__file__).parent / "demo"


def _with_tokenizer(load: Callable[..., Any], tokenizer: Any) -> Callable[..., Any]:
    return lambda *_, **__: (load()[0], tokenizer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "ours")
