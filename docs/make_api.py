"""Writes docs/api.md from the docstrings of the public names. With `--check` it only compares."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx_qwen3
from mlx_qwen3 import errors, events

PAGE = Path(__file__).parent / "api.md"
WIDTH = 100  # columns of a signature
# Public in engine/ and of no use to a program.
INTERNAL = {"cache_nbytes", "call", "fingerprint", "load_cache", "new_cache", "new_drafter", "submit"}
INTRO = """\
# API

What you can import from `mlx_qwen3`, then the events of a turn and the errors. `docs/make_api.py` makes this
page from the docstrings. [mac-app.md](mac-app.md) shows the engine in use.
"""
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes):$")
ENTRY = re.compile(r"(\*{0,2}[\w., ]+?)(?: \([^)]*\))?: (.*)")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def page() -> str:
    """The text of docs/api.md."""
    parts = [INTRO, "## `mlx_qwen3`\n"]
    parts += [of_name(name) for name in sorted(mlx_qwen3.__all__, key=str.lower)]
    for module in (events, errors):
        parts += [f"## `{module.__name__}`\n", *of_module(module)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(filter(None, parts))).rstrip() + "\n"


def of_name(name: str) -> str:
    """The entry of a name exported by the package; none for those of a module with a section of its own."""
    value = getattr(mlx_qwen3, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        is_event = hasattr(events, name)
        return "" if is_event else of_constant(mlx_qwen3, name)
    if value.__module__ in (events.__name__, errors.__name__):
        return ""
    node, source = parsed(value)
    if isinstance(value, type) and isinstance(node, ast.ClassDef):
        return of_class(value, node, source)
    assert isinstance(node, Function)
    return entry(3, node.name, signature(node, source), ast.get_docstring(node))


def of_module(module: ModuleType) -> Iterator[str]:
    """The entries of all public names of a module, in its order."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            value = getattr(module, node.name)
            yield of_class(value, *parsed_class(value))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield of_constant(module, node.targets[0].id)


def of_constant(module: ModuleType, name: str) -> str:
    """The entry of a constant or type alias: its definition, if it is a type, and the string below it."""
    source = inspect.getsource(module)
    body = ast.parse(source).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            definition = "" if module is mlx_qwen3 else ast.get_source_segment(source, node) or ""
            return "" if name.startswith("_") else entry(3, name, definition, string_of(after))
    return ""


def of_class(value: type, node: ast.ClassDef, source: str) -> str:
    """The entry of a class: how it is made, its fields, and its public methods and properties."""
    bases = ", ".join(filter(None, (ast.get_source_segment(source, base) for base in node.bases)))
    head = f"class {node.name}({bases})" if bases else f"class {node.name}"
    doc = ast.get_docstring(node) or ""
    fields, methods = list[str](), list[str]()
    for name, (item, text) in members(value).items():
        if not isinstance(item, Function):
            fields += textwrap.indent(ast.get_source_segment(text, item) or "", "    ").splitlines()[:1]
        elif name == "__init__":
            head = signature(item, text, node.name)
            doc = f"{doc}\n\n{ast.get_docstring(item) or ''}"
        elif ast.get_docstring(item):
            methods.append(of_method(item, text, node.name))
    code = "\n".join([f"{head}:", *fields]) if fields else head
    return "\n".join([entry(3, node.name, code, doc.strip()), *methods])


def members(value: type) -> dict[str, tuple[ast.stmt, str]]:
    """The public fields and methods of a class, each with the source it is in; an error's own alone."""
    found: dict[str, tuple[ast.stmt, str]] = {}
    for owner in value.__mro__:
        inherits = owner is not value and issubclass(value, Exception)
        if inherits or not owner.__module__.startswith("mlx_qwen3"):
            continue
        tree, source = parsed_class(owner)
        for item in tree.body:
            name = "" if is_decorated(item, "overload", ".setter") else name_of(item)
            if name and name not in INTERNAL:
                found.setdefault(name, (item, source))
    return found


def of_method(node: Function, source: str, owner: str) -> str:
    """The entry of a method or property."""
    returned = ast.get_source_segment(source, node.returns) if node.returns else None
    code = f"{node.name}: {returned}" if is_decorated(node, "property") else signature(node, source)
    return entry(4, f"{owner}.{node.name}", code, ast.get_docstring(node))


def is_decorated(node: ast.stmt, *endings: str) -> bool:
    """Whether one of the decorators of `node` ends so."""
    decorators = node.decorator_list if isinstance(node, Function) else []
    return any(ast.unparse(decorator).endswith(endings) for decorator in decorators)


def name_of(node: ast.stmt) -> str:
    """The public name that a statement of a class defines, `__init__` included; empty for others."""
    if isinstance(node, Function):
        name = node.name
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        name = node.target.id
    else:
        return ""
    return name if not name.startswith("_") or name == "__init__" else ""


def entry(level: int, name: str, code: str, doc: str | None) -> str:
    block = f"```python\n{code}\n```\n" if code else ""
    return f"{'#' * level} `{name}`\n\n{block}\n{markdown(doc or '')}\n"


def signature(node: Function, source: str, name: str = "") -> str:
    """The call as the source spells it: parameters but self, their types and defaults, the type returned."""
    spelled, arguments = [], node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    for place, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        if place > 0 or argument.arg not in ("self", "cls"):
            spelled.append(parameter(argument, default, source))
    if arguments.vararg:
        spelled.append("*" + parameter(arguments.vararg, None, source))
    elif arguments.kwonlyargs:
        spelled.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        spelled.append(parameter(argument, default, source))
    if arguments.kwarg:
        spelled.append("**" + parameter(arguments.kwarg, None, source))
    returned = ast.get_source_segment(source, node.returns) if node.returns and not name else None
    end = f") -> {' '.join(returned.split())}" if returned else ")"
    call = ("async " if isinstance(node, ast.AsyncFunctionDef) else "") + (name or node.name)
    one_line = f"{call}({', '.join(spelled)}{end}"
    if len(one_line) <= WIDTH:
        return one_line
    return f"{call}(\n" + "".join(f"    {each},\n" for each in spelled) + end


def parameter(argument: ast.arg, default: ast.expr | None, source: str) -> str:
    text = argument.arg
    if argument.annotation:
        text += f": {ast.get_source_segment(source, argument.annotation)}"
    if default:
        text += f"{' = ' if argument.annotation else '='}{ast.get_source_segment(source, default)}"
    return " ".join(text.split())


def markdown(doc: str) -> str:
    """A docstring in Google style as Markdown: each section a list, its entries with their names in code."""
    lines, section = [], ""
    for line in doc.splitlines():
        if match := SECTION.match(line):
            section = match[1]
            lines += ["", f"{section}:", ""]
        elif line and not line.startswith(" "):
            section = ""
            lines.append(line)
        elif not section:
            lines.append(line)
        elif section.startswith(("Example", "Note", "Returns", "Yields")):
            lines.append(line.removeprefix("    ") if section != "Example" else line)
        elif (match := ENTRY.fullmatch(line.strip())) and not line.startswith("     "):
            names = ", ".join(f"`{name}`" for name in match[1].split(", "))
            lines.append(f"- {names}: {match[2]}")
        elif line.strip():
            lines.append(f"  {line.strip()}")
        else:
            lines.append("")
    return "\n".join(lines).strip()


def parsed(value: Any) -> tuple[ast.stmt, str]:
    source = textwrap.dedent(inspect.getsource(value))
    return ast.parse(source).body[0], source


def parsed_class(value: type) -> tuple[ast.ClassDef, str]:
    node, source = parsed(value)
    assert isinstance(node, ast.ClassDef)
    return node, source


def string_of(node: ast.stmt | None) -> str | None:
    """The text of a statement that is a string, such as the one below a constant."""
    value = node.value if isinstance(node, ast.Expr) else None
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return inspect.cleandoc(value.value)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if docs/api.md is not up to date")
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
        return
    written = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if written != text:
        before, after = (each.splitlines(keepends=True) for each in (written, text))
        sys.stdout.writelines(difflib.unified_diff(before, after, "docs/api.md", "made"))
        raise SystemExit("docs/api.md is out of date: run python docs/make_api.py")


if __name__ == "__main__":
    main()
