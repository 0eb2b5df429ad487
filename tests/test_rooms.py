"""Imports go one way: the rooms of the package are ordered, and no module imports from a later room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mlx_qwen3

PACKAGE = Path(mlx_qwen3.__file__).parent
ROOMS = [
    "errors", "events", "files",
    "backend", "cache", "tokenizer", "parsing", "tools",
    "model", "generation", "grammar", "distributed",
    "checkpoint", "adapters",
    "engine", "conversion", "finetuning", "bench", "doctor", "server", "cli", "demo",
]  # fmt: skip
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")
NAMES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that `path` imports, in functions and under TYPE_CHECKING included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlx_qwen3"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner in NAMES or f"{inner}.__init__" in NAMES
                yield inner if is_module else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mlx_qwen3."))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


GRAPH = {module_name(path): set(imported(path)) - {"mlx_qwen3"} for path in MODULES if path.parent != PACKAGE
         or path.name != "__init__.py"}  # fmt: skip


@pytest.mark.parametrize("module", GRAPH)
def test_imports_come_from_earlier_rooms(module: str) -> None:
    assert room(module) in ROOMS, "name the room's place in the order"
    upward = [name for name in GRAPH[module] if ROOMS.index(room(name)) > ROOMS.index(room(module))]
    assert upward == []


def test_no_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_top_folder_is_a_table_of_contents() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 5


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}, key=str), ids=lambda p: p.name)
def test_rooms_and_modules_stay_small(folder: Path) -> None:
    modules = list(folder.glob("*.py"))
    assert len([path for path in modules if path.name != "__init__.py"]) <= 14
    assert [p.name for p in modules if len(p.read_text(encoding="utf-8").splitlines()) > 350] == []
