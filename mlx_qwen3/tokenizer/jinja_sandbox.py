"""Runs a Jinja chat template in jinja2's immutable sandbox, with what transformers adds to it.

The settings are those of transformers (`trim_blocks`, `lstrip_blocks`, `break` and `continue`, a `tojson`
that does not escape HTML, `raise_exception`, `strftime_now`, `{% generation %}`), so a template gives the
same text here as there. The sandbox keeps a template from other objects, but not from time and memory: a
template that is not known runs in a process of its own, see isolated_template.py.

Importing this module imports jinja2, so import it only to compile a template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension
from jinja2.meta import TrackingCodeGenerator
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from mlx_qwen3.errors import MessageError, TemplateError, one_line

_MAX_MESSAGE = 1000


class CompiledTemplate:
    """A template compiled in this process.

    Attributes:
        variables: The names that it reads from outside.
        strings: Its text, string constants and attribute names.
    """

    def __init__(self, source: str) -> None:
        """Raises TemplateError, with the line where there is one, if `source` cannot be compiled."""
        environment = _Sandbox()
        try:
            tree = environment.parse(source)
            self.variables = frozenset(_variables(tree, environment))
            self.strings = frozenset(_strings(tree))
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template does not parse, line {error.lineno}: {one_line(error, _MAX_MESSAGE)}"
            ) from error
        except RecursionError as error:
            raise TemplateError("the chat template does not parse: it is nested too deeply") from error
        except Exception as error:
            # What jinja2's parser takes, Python's compiler may refuse: `break` outside of a loop, say.
            raise TemplateError(
                f"the chat template does not parse: {one_line(error, _MAX_MESSAGE)}"
            ) from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of the template for `variables`.

        Raises MessageError if the template refuses the conversation with `raise_exception`, and
        TemplateError if it fails or reaches outside its sandbox.
        """
        try:
            return self._template.render(variables)
        except _RefusedError as error:
            reason = one_line(error, _MAX_MESSAGE)
            raise MessageError(f"the chat template refuses this conversation: {reason}") from error
        except jinja2.exceptions.SecurityError as error:
            raise TemplateError(
                f"the chat template reaches outside its sandbox: {one_line(error, _MAX_MESSAGE)}"
            ) from error
        except (OverflowError, MemoryError, RecursionError) as error:
            raise TemplateError(f"the chat template runs away{_at(error)}: it was stopped") from error
        except Exception as error:
            problem = f"{type(error).__name__}: {one_line(error, _MAX_MESSAGE)}"
            raise TemplateError(f"the chat template fails{_at(error)}: {problem}") from error


class _RefusedError(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _Namespace(Namespace):
    """jinja2's `namespace`, without names that Python itself looks up, such as `__call__`."""

    # No parameter has a name, so that a template can write `namespace(self=...)`.
    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _refuse_private(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class _Generation(Extension):
    """`{% generation %}` marks the model's own text for training; here it has no effect on the text."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it as a plain set

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _NoFolding(CodeGenerator):
    """Runs no filter and no operator while it compiles; jinja2 would, where all operands are constant."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> str:
        if not isinstance(node, nodes.Const | nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


class _Tracking(_NoFolding, TrackingCodeGenerator):
    """Collects the names that a template reads from outside."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox with the filters and functions of transformers."""

    code_generator_class = _NoFolding

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            optimized=False,  # see _NoFolding
        )
        self.filters |= {"tojson": _tojson}
        self.globals = {
            "range": safe_range,
            "dict": _make_dict,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # jinja2 would raise only when the value is used.
        raise jinja2.exceptions.SecurityError(f"access to {attribute!r} of {type(obj).__name__!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`tojson` as transformers defines it: plain JSON, where jinja2's own escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> NoReturn:
    raise _RefusedError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have the name {name!r}")


def _variables(tree: nodes.Template, environment: jinja2.Environment) -> set[str]:
    """The names that a template reads from outside, as `jinja2.meta.find_undeclared_variables` finds them."""
    generator = _Tracking(environment)
    generator.optimizer = None  # see _NoFolding
    generator.visit(tree)
    return generator.undeclared_identifiers


def _strings(tree: nodes.Template) -> Iterator[str]:
    yield from (node.data for node in tree.find_all(nodes.TemplateData))
    yield from (node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str))
    yield from (node.attr for node in tree.find_all(nodes.Getattr))


def _at(error: BaseException) -> str:
    """The line of the template that raised `error`; jinja2 writes it into the traceback."""
    line, frame = None, error.__traceback__
    while isinstance(frame, TracebackType):
        line = frame.tb_lineno if frame.tb_frame.f_code.co_filename == "<template>" else line
        frame = frame.tb_next
    return f" in line {line}" if line else ""
