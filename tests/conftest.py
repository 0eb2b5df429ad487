"""What all tests have: a home folder of their own, the same draws in each run, small models of every kind."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections.abc import Callable, Generator, Iterator

# Or fp32 products are rounded to 10 bits on some GPUs, and every close comparison fails.
os.environ.setdefault("MLX_ENABLE_TF32", "0")
# Processes that test side by side have a core each. numpy's own threads spin while they wait for work.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("MLX_QWEN3_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
# A shell has what runs in the background ignore Ctrl-C, and programs started here would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import own_home  # noqa: F401  # isort: skip  # before libraries look for their folders

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from parity.model_cases import DENSE, MOE, Raw, weights

from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

# A busy machine may take long over an example. Each run tries the same examples, a long run new ones.
settings.register_profile(
    "mlx_qwen3",
    deadline=None,
    derandomize="MLX_QWEN3_LONG_TESTS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mlx_qwen3")

KINDS: dict[str, Raw] = {
    "dense": DENSE,
    "dense-tied": {**DENSE, "tie_word_embeddings": True},
    "moe": MOE,
}


def build(raw: Raw) -> Model:
    """The fp32 model of this config with its drawn weights, loaded as from a published checkpoint."""
    model = Model(ModelConfig.from_dict(raw))
    tensors = {name: mx.array(value) for name, value in weights(raw).items()}
    model.load_weights(list(model.sanitize(tensors).items()), strict=True)
    mx.eval(model.parameters())
    return model.eval()


@pytest.fixture(params=list(KINDS))
def tiny_raw(request: pytest.FixtureRequest) -> Raw:
    """config.json of a small model, once for each kind."""
    return dict(KINDS[request.param])


@pytest.fixture
def tiny_model(tiny_raw: Raw) -> Model:
    """A small fp32 model, once for each kind."""
    return build(tiny_raw)


@pytest.fixture
def make_model() -> Callable[[Raw], Model]:
    """Builds the small model of a config of `parity.model_cases`."""
    return build


def has_gpu() -> bool:
    """Whether MLX can compute on a GPU here."""
    return bool(mx.is_available(mx.Device(mx.gpu)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=("cpu", "gpu", "both"), help="Where MLX computes; both where there is a GPU."
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") in ("gpu", "both") and not has_gpu():
        raise pytest.UsageError("--device: MLX finds no GPU here")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Looking for garbage takes a third of the collection, and finds little: imports and tests stay.

    They are not looked through again while tests run.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def devices(config: pytest.Config) -> list[str]:
    """The devices that every test runs on."""
    chosen = config.getoption("--device") or ("both" if has_gpu() else "cpu")
    return ["cpu", "gpu"] if chosen == "both" else [chosen]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # By the session, so that all tests of one device come before those of the other. A single device has no
    # part in the names of tests.
    if len(chosen := devices(metafunc.config)) > 1:
        metafunc.fixturenames.insert(0, "device")
        metafunc.parametrize("device", chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device MLX computes on by default: "cpu" or "gpu"."""
    name: str = getattr(request, "param", None) or devices(request.config)[0]
    before = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu if name == "cpu" else mx.gpu))
    yield name
    mx.set_default_device(before)


@pytest.fixture(autouse=True)
def _on_device(request: pytest.FixtureRequest, device: str) -> None:
    """Skip what is about the other device."""
    for mark, only in (("cpu_only", "cpu"), ("gpu_only", "gpu")):
        if (found := request.node.get_closest_marker(mark)) and device != only:
            pytest.skip(str(found.kwargs.get("reason", f"it is about the {only.upper()}")))


@pytest.fixture(autouse=True)
def _seeded(_on_device: None) -> None:
    """What a test draws without a seed is the same in each run, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    mx.random.seed(0)


@pytest.fixture
def tolerance(device: str) -> Callable[[float], float]:
    """How far results may differ where a CPU's may by so much: a GPU sums in another order."""
    return lambda value: value if device == "cpu" else max(20 * value, 1e-3)
