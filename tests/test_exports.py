"""The package is light to import, and what it promises is there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mlx_qwen3

ROOT = Path(__file__).parent.parent
HEAVY = ("transformers", "torch", "mlx.core", "mlx_lm", "huggingface_hub", "rich", "jinja2", "prompt_toolkit")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", mlx_qwen3.__all__)
def test_every_export_exists(name: str) -> None:
    assert getattr(mlx_qwen3, name, "missing") != "missing"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        mlx_qwen3.no_such_name  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = run("import mlx_qwen3, sys; print(*sys.modules)").split()
    assert [name for name in HEAVY if name in loaded] == []


def test_what_is_logged_goes_nowhere_until_the_program_says_where() -> None:
    code = (
        "import logging, mlx_qwen3\n{setup}\n"
        "logging.getLogger('mlx_qwen3').error('an error')\n"
        "mlx_qwen3.Engine().close()"
    )
    quiet = subprocess.run(
        [sys.executable, "-c", code.format(setup="")], capture_output=True, text=True, check=True
    )
    assert (quiet.stdout, quiet.stderr) == ("", "")
    setup = "logging.basicConfig(level=logging.INFO)"
    loud = subprocess.run(
        [sys.executable, "-c", code.format(setup=setup)], capture_output=True, text=True, check=True
    )
    assert "ERROR:mlx_qwen3:an error" in loud.stderr
    assert "INFO:mlx_qwen3:loaded demo from " in loud.stderr


def test_help_imports_no_mlx() -> None:
    code = (
        "import sys\nfrom mlx_qwen3.cli.app import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    loaded = run(code).split("LOADED")[1].split()
    assert [name for name in HEAVY if name in loaded and name != "rich"] == []


def test_an_engine_needs_neither_transformers_nor_torch() -> None:
    loaded = run("import mlx_qwen3, sys\nmlx_qwen3.Engine().close()\nprint(*sys.modules)").split()
    assert [name for name in ("transformers", "torch", "mlx_lm", "huggingface_hub") if name in loaded] == []


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == mlx_qwen3.__version__
