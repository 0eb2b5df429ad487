"""Runs a checkpoint's Jinja template in a sandbox: it is untrusted code.

The settings are those of transformers (`trim_blocks`, `lstrip_blocks`, `break` and `continue`, a `tojson`
that does not escape HTML, `raise_exception`, `strftime_now`, `{% generation %}`), so a template gives the
same text here as there. jinja2's immutable sandbox keeps it from other objects. A budget limits its time
and memory: every loop step, call, operator, filter and joined string is charged by the size of its result,
and a template that exceeds the budget is stopped.

Importing this module imports jinja2, so import it only to compile a template.
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

from mlx_qwen3.errors import MessageError, TemplateError, one_line

_MAX_STEPS = 4_000_000  # Qwen3's template takes 100,000 for a conversation of 10,000 messages
_BYTES_PER_STEP = 64
_MAX_CHARACTERS = _MAX_STEPS * _BYTES_PER_STEP
_MAX_INT_BITS = 1024

# The variable that holds the budget and the filters that charge it. `~` cannot be part of a template's names.
_BUDGET, _LOOP, _JOIN, _CHARGE = "~budget", "~loop", "~join", "~charge"


class CompiledTemplate:
    """A compiled template.

    variables: the names that it reads from outside. strings: its text, string constants and attribute names.
    """

    def __init__(self, source: str) -> None:
        """Raises TemplateError, with the line, if `source` does not parse."""
        environment = _Sandbox()
        try:
            tree = _Metering(environment).visit(environment.parse(source))
            self.variables = frozenset(meta.find_undeclared_variables(tree))
            self.strings = frozenset(_strings(tree))
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template does not parse, line {error.lineno}: {one_line(error)}"
            ) from error
        except RecursionError as error:
            raise TemplateError("the chat template does not parse: it is nested too deeply") from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of the template for `variables`.

        Raises MessageError if the template refuses the conversation with `raise_exception`, and
        TemplateError if it fails, reaches outside its sandbox or exceeds its budget.
        """
        try:
            return self._template.render({**variables, _BUDGET: _Budget()})
        except _RefusedError as error:
            raise MessageError(f"the chat template refuses this conversation: {one_line(error)}") from error
        except jinja2.exceptions.SecurityError as error:
            raise TemplateError(
                f"the chat template reaches outside its sandbox: {one_line(error)}"
            ) from error
        except (_BudgetExceededError, OverflowError, MemoryError, RecursionError) as error:
            raise TemplateError(f"the chat template runs away{_at(error)}: it was stopped") from error
        except Exception as error:
            problem = f"{type(error).__name__}: {one_line(error)}"
            raise TemplateError(f"the chat template fails{_at(error)}: {problem}") from error


class _RefusedError(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _BudgetExceededError(Exception):
    """The template took more steps than its budget has."""


class _Budget:
    """The steps left for one rendering. A step is one operation and up to 64 bytes of its result."""

    def __init__(self) -> None:
        self.steps = _MAX_STEPS

    def charge(self, size: int) -> None:
        """Charge one operation with a result of `size` bytes."""
        self.steps -= 1 + max(size, 0) // _BYTES_PER_STEP
        if self.steps < 0:
            raise _BudgetExceededError

    def charge_for(self, result: Any) -> Any:
        """Charge the operation that made `result`; return `result`."""
        self.charge(_size(result))
        if isinstance(result, int) and result.bit_length() > _MAX_INT_BITS:
            raise _BudgetExceededError
        return result


def _size(value: Any) -> int:
    """The approximate size of `value` in bytes."""
    if isinstance(value, str):
        return len(value)
    return 8 * len(value) if isinstance(value, list | tuple) else 0


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


def _join_output(parts: Iterable[str]) -> str:
    """Joins the output of a template or macro, up to the longest text that is allowed."""
    joined, size = [], 0
    for part in parts:
        size += len(part)
        if size > _MAX_CHARACTERS:
            raise _BudgetExceededError
        joined.append(part)
    return "".join(joined)


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox with the filters and functions of transformers, charged to the budget."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))
    concat = staticmethod(_join_output)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            optimized=False,  # the optimizer would run filters while compiling, without a budget
        )
        self.filters |= {"tojson": _tojson, _LOOP: _metered_loop, _JOIN: _metered_join, _CHARGE: _charge}
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

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget: _Budget = context[_BUDGET]
        if operator == "*":
            budget.charge(_repeated_size(left, right))
        if operator == "**" and _power_bits(left, right) > _MAX_INT_BITS:
            raise _BudgetExceededError
        return budget.charge_for(self.binop_table[operator](left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget: _Budget = __context[_BUDGET]
        return budget.charge_for(super().call(__context, __obj, *args, **kwargs))


class _Metering(NodeTransformer):
    """Rewrites the loops, `~` and filters of a template so that each step and each result is charged."""

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
        return self._filter(node, _CHARGE)

    def _filter(self, node: nodes.Node, name: str) -> nodes.Filter:
        filtered = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        filtered.set_environment(self._environment)
        return filtered


@jinja2.pass_context
def _metered_loop(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    budget: _Budget = context[_BUDGET]
    for item in items:
        yield item
        budget.charge(0)


@jinja2.pass_context
def _metered_join(context: Context, parts: list[Any]) -> Any:
    return context[_BUDGET].charge_for("".join(map(str, parts)))


@jinja2.pass_context
def _charge(context: Context, result: Any) -> Any:
    return context[_BUDGET].charge_for(result)


def _repeated_size(left: Any, right: Any) -> int:
    """The size of `left * right` in bytes, if one is a number and the other is text or a list."""
    if isinstance(right, int):
        return _size(left) * right
    return _size(right) * left if isinstance(left, int) else 0


def _power_bits(base: Any, exponent: Any) -> int:
    """About how many bits `base ** exponent` has, if both are integers."""
    if isinstance(base, int) and isinstance(exponent, int):
        return base.bit_length() * abs(exponent)
    return 0


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
