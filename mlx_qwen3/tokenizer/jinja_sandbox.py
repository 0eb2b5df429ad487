"""Runs a checkpoint's Jinja template, which strangers wrote, where it can reach nothing and not run away.

Rules are transformers' (`trim_blocks`, `lstrip_blocks`, `break` and `continue`, a `tojson` that escapes
no HTML, `raise_exception`, `strftime_now`, `{% generation %}`), so that a template writes here what it
writes there. On top of jinja2's immutable sandbox every loop step, call, operator, filter and joined
string is paid from a budget once it is there; a template that has spent it is stopped.

Importing this module imports jinja2: import it when a template is to be compiled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from mlx_qwen3.errors import MessageError, TemplateError

_STEPS = 4_000_000  # a 10,000-message conversation takes Qwen3's template 100,000
_BYTES_PER_STEP = 64
_MAX_CHARACTERS = _STEPS * _BYTES_PER_STEP
_MAX_INT_BITS = 1024

# Names no template can write: the budget among its variables, and the filters that charge it.
_BUDGET, _LOOP, _JOIN, _PAY = "~budget", "~loop", "~join", "~pay"


class Program:
    """A compiled template.

    variables: the names it reads from outside. words: its own text, string constants and attribute names.
    """

    def __init__(self, source: str) -> None:
        """Raises TemplateError, with the line, when `source` does not parse."""
        environment = _Sandbox()
        try:
            tree = _Metering(environment).visit(environment.parse(source))
            self.variables = frozenset(meta.find_undeclared_variables(tree))
            self.words = frozenset(_words(tree))
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template does not parse, line {error.lineno}: {_line(error)}"
            ) from error
        except RecursionError as error:
            raise TemplateError("the chat template does not parse: it is nested too deeply") from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text written for `variables`.

        Raises MessageError when the template refuses the conversation through `raise_exception`,
        TemplateError when it fails, reaches outside its sandbox or runs away.
        """
        try:
            return self._template.render({**variables, _BUDGET: _Budget()})
        except _RefusedError as error:
            raise MessageError(f"the chat template refuses this conversation: {_line(error)}") from error
        except jinja2.exceptions.SecurityError as error:
            raise TemplateError(f"the chat template reaches outside its sandbox: {_line(error)}") from error
        except (_SpentError, OverflowError, MemoryError, RecursionError) as error:
            raise TemplateError(f"the chat template runs away{_at(error)}: it was stopped") from error
        except Exception as error:
            problem = f"{type(error).__name__}: {_line(error)}"
            raise TemplateError(f"the chat template fails{_at(error)}: {problem}") from error


class _RefusedError(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _SpentError(Exception):
    """The template's budget is spent."""


class _Budget:
    """Steps left to one rendering."""

    def __init__(self) -> None:
        self.steps = _STEPS

    def charge(self, size: int) -> None:
        self.steps -= 1 + max(size, 0) // _BYTES_PER_STEP
        if self.steps < 0:
            raise _SpentError

    def pay(self, result: Any) -> Any:
        """Charges for making `result`, and hands it on."""
        self.charge(_size(result))
        if isinstance(result, int) and result.bit_length() > _MAX_INT_BITS:
            raise _SpentError
        return result


def _size(value: Any) -> int:
    """What `value` takes, roughly, in bytes."""
    if isinstance(value, str):
        return len(value)
    return 8 * len(value) if isinstance(value, list | tuple) else 0


class _Namespace(Namespace):
    """jinja2's `namespace`, without names that Python looks up by itself (`__call__` and the like)."""

    # No parameter has a name, so that a template may write `namespace(self=...)`.
    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _refuse_private(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class _Generation(Extension):
    """`{% generation %}` marks the model's own words for training; here it only writes them."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it as a plain set

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _join_output(parts: Iterable[str]) -> str:
    """What templates and macros use to join what they wrote."""
    kept, size = [], 0
    for part in parts:
        size += len(part)
        if size > _MAX_CHARACTERS:
            raise _SpentError
        kept.append(part)
    return "".join(kept)


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox, with transformers' filters and functions, whose work is paid for."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))
    concat = staticmethod(_join_output)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            optimized=False,  # the optimizer would run filters while compiling, unpaid
        )
        self.filters |= {"tojson": _tojson, _LOOP: _metered_loop, _JOIN: _metered_join, _PAY: _pay}
        self.globals = {
            "range": safe_range,
            "dict": _make_dict,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # jinja2 would raise only when the value is used: stop at the attempt.
        raise jinja2.exceptions.SecurityError(f"access to {attribute!r} of {type(obj).__name__!r}")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget: _Budget = context[_BUDGET]
        if operator == "*":
            budget.charge(_repeated_size(left, right))
        if operator == "**" and _power_bits(left, right) > _MAX_INT_BITS:
            raise _SpentError
        return budget.pay(self.binop_table[operator](left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget: _Budget = __context[_BUDGET]
        return budget.pay(super().call(__context, __obj, *args, **kwargs))


class _Metering(NodeTransformer):
    """Rewrites a template's loops, `~` and filters so that each step and each result is paid for."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._environment = environment

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = self._filter(node.iter, _LOOP)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), _JOIN)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(node, _PAY)

    def _filter(self, node: nodes.Node, name: str) -> nodes.Filter:
        made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        made.set_environment(self._environment)
        return made


@jinja2.pass_context
def _metered_loop(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    budget: _Budget = context[_BUDGET]
    for item in items:
        yield item
        budget.pay(None)


@jinja2.pass_context
def _metered_join(context: Context, parts: list[Any]) -> Any:
    return context[_BUDGET].pay("".join(map(str, parts)))


@jinja2.pass_context
def _pay(context: Context, result: Any) -> Any:
    return context[_BUDGET].pay(result)


def _repeated_size(left: Any, right: Any) -> int:
    """What `left * right` will take, where one is a number and the other is text or a list."""
    if isinstance(right, int):
        return _size(left) * right
    return _size(right) * left if isinstance(left, int) else 0


def _power_bits(base: Any, exponent: Any) -> int:
    both_whole = isinstance(base, int) and isinstance(exponent, int)
    return base.bit_length() * abs(exponent) if both_whole else 0


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`tojson` as transformers defines it: plain JSON, unlike jinja2's own, which escapes HTML."""
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
        raise jinja2.exceptions.SecurityError(f"a namespace takes no name like {name!r}")


def _words(tree: nodes.Template) -> Iterator[str]:
    yield from (node.data for node in tree.find_all(nodes.TemplateData))
    yield from (node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str))
    yield from (node.attr for node in tree.find_all(nodes.Getattr))


def _at(error: BaseException) -> str:
    """The template's line that raised `error`, as jinja2 wrote it into the traceback."""
    line, frame = None, error.__traceback__
    while isinstance(frame, TracebackType):
        line = frame.tb_lineno if frame.tb_frame.f_code.co_filename == "<template>" else line
        frame = frame.tb_next
    return f" in line {line}" if line else ""


def _line(error: BaseException) -> str:
    """The message of `error` as one line without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(error)).split())
