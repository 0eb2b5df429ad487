"""The pages say what is so: files and modules they name exist, links lead somewhere, api.md is up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main

from mlx_qwen3.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "training" / "README.md"]
    if page.name not in ("log.md", "CHANGELOG.md")  # they name files of their time
)
PLACES = [ROOT, ROOT / "mlx_qwen3", ROOT / "tests"]  # where a path may start, beside the page's folder
FILE = re.compile(r"`((?:\w[\w.-]*/)*[\w.-]+\.py)(?:::?\w+)?`")
FOLDER = re.compile(r"`((?:[a-z_0-9]+/)+)`")
MODULE = re.compile(r"python -m ((?:benchmarks|training|mlx_qwen3)[\w.]*)|`(mlx_qwen3(?:\.[a-z_]+)+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|[`/]|\| )mlx-qwen3 ([a-z]+)([^`|#\n]*)", re.MULTILINE)
page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def exists(name: str, page: Path) -> bool:
    return any((place / name).exists() for place in [page.parent, *PLACES])


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page_by_page
def test_files_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = [*FILE.findall(text), *FOLDER.findall(text)]
    assert [name for name in names if not exists(name, page)] == []


@page_by_page
def test_modules_named_in_a_page_exist(page: Path) -> None:
    names = {name for pair in MODULE.findall(page.read_text(encoding="utf-8")) for name in pair if name}
    assert [name for name in names if find_spec(name) is None] == []


@page_by_page
def test_commands_and_flags_in_a_page_exist(page: Path) -> None:
    commands = vars(typer.main.get_command(app))["commands"]
    unknown = []
    for name, arguments in COMMAND.findall(page.read_text(encoding="utf-8")):
        params = commands[name].params if name in commands else []
        known = {"--help", *(flag for param in params for flag in [*param.opts, *param.secondary_opts])}
        flags = re.findall(r"(?<=\s)--[a-z-]+", arguments)
        unknown += [f"{name} {flag}" for flag in flags if flag not in known]
        unknown += [name] if name not in commands else []
    assert unknown == []


@page_by_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "architecture.md"} <= {page.name for page in PAGES}


def test_the_api_page_says_what_the_docstrings_say() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_api.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
