"""Python functions as tools: `@tool`, checking the arguments, running the function."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast, overload

from mlx_qwen3.tools.base import Tool, ToolError, ToolOutput
from mlx_qwen3.tools.function_schema import CallableInfo, arguments_model, json_schema, read_docstring
from mlx_qwen3.tools.output_text import bytes_to_text, error_output

if TYPE_CHECKING:
    from pydantic import ValidationError

DEFAULT_TIMEOUT = 60.0


class FunctionTool(Tool):
    """A Python function the model may call; made by `@tool`. Calling the object calls the function.

    Args:
        function: A function, `functools.partial` or callable object whose parameters all have types.
        name: The tool's name; None for the function's name.
        timeout: The seconds a call may take.

    Raises:
        ToolError: As `tool`.
    """

    def __init__(self, function: Callable[..., Any], name: str | None, timeout: float):
        if not callable(function):
            raise ToolError(f"@tool goes on a function, not on {type(function).__name__}")
        _check_options(name, timeout)
        info = CallableInfo(function)
        description, parameter_docs = read_docstring(info.docstring, info.documented_names)
        self._model = arguments_model(info, parameter_docs)
        super().__init__(name or info.name, description, json_schema(self._model))
        self.function, self.timeout = function, timeout
        # Without its attributes: one called `name` would replace the tool's.
        functools.update_wrapper(cast("Callable[..., Any]", self), function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        """Check `arguments` against the function's types, run it, and return its result as text.

        A function that is not async runs in its own thread, which cannot be stopped: after the time limit
        the call returns and the thread goes on.
        """
        from pydantic import ValidationError

        try:
            checked = self._check_arguments(arguments or {})
        except ValidationError as error:
            return ToolOutput(_describe_errors(self.name, error), is_error=True)
        except BaseException as error:  # noqa: BLE001  a validator of the tool's types may raise anything
            return error_output(error)
        output: ToolOutput | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timeout):
                output = await self._run(checked)
        if output is None:
            return ToolOutput(f"{self.name} did not finish within {self.timeout:g} seconds.", is_error=True)
        return output

    def _check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments converted to the function's types. Missing ones are left to its defaults."""
        checked = self._model.model_validate(arguments)
        fields = type(checked).model_fields
        return {str(fields[key].alias): getattr(checked, key) for key in checked.model_fields_set}

    async def _run(self, arguments: dict[str, Any]) -> ToolOutput:
        """Run the function. Whatever it raises, SystemExit and KeyboardInterrupt too, is in the output."""
        function = functools.partial(self.function, **arguments)
        if inspect.iscoroutinefunction(self.function):
            return await _await_output(function())
        output = await _run_in_thread(function, self.name)
        return await _await_output(output) if inspect.isawaitable(output) else output


@overload
def tool(function: Callable[..., Any]) -> FunctionTool: ...
@overload
def tool(
    *, name: str | None = None, timeout: float = DEFAULT_TIMEOUT
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None, *, name: str | None = None, timeout: float = DEFAULT_TIMEOUT
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a typed function a tool: `@tool`, or `@tool(name="...", timeout=seconds)`.

    The docstring is the tool's description. Lines such as `city: the city's name` describe parameters.

    Args:
        function: A function, `functools.partial` or callable object whose parameters all have types. It
            may be async. The model neither sees nor chooses what a partial has bound.
        name: The tool's name; None for the function's name.
        timeout: The seconds a call may take.

    Returns:
        The tool, which can still be called like the function.

    Raises:
        ToolError: A parameter has no type, or a type that JSON cannot describe.
    """
    _check_options(name, timeout)
    if function is None:
        return lambda decorated: FunctionTool(decorated, name, timeout)
    return FunctionTool(function, name, timeout)


def _check_options(name: str | None, timeout: float) -> None:
    if name is not None and not (isinstance(name, str) and name):
        raise ToolError(f"name must be text, not {name!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ToolError(f"timeout must be a number of seconds above 0, not {timeout!r}")


async def _await_output(result: Awaitable[Any]) -> ToolOutput:
    try:
        return _to_output(await result)
    except BaseException as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # by the time limit or by the user
            raise asyncio.CancelledError from error
        return error_output(error)


def _run_in_thread(
    function: Callable[[], Any], name: str
) -> asyncio.Future[ToolOutput] | asyncio.Future[Awaitable[Any]]:
    """Run `function` in a daemon thread. The threads of a pool would delay the end of the program.

    The future gives the output, or the awaitable that the function returned. It never gets an exception:
    asyncio refuses StopIteration, and ends the event loop for SystemExit and KeyboardInterrupt.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(output: ToolOutput | Awaitable[Any]) -> None:
        if not future.done():
            future.set_result(output)

    def run() -> None:
        try:
            result = function()
            output = result if inspect.isawaitable(result) else _to_output(result)
        except BaseException as error:  # noqa: BLE001  the model is told whatever a tool raises
            output = error_output(error)
        with contextlib.suppress(RuntimeError):  # the loop was closed: no one waits any more
            loop.call_soon_threadsafe(settle, output)

    threading.Thread(target=run, name=f"tool {name}", daemon=True).start()
    return future


def _to_output(result: Any) -> ToolOutput:
    """A function's result for the model: text as it is, bytes as text or named, all else as JSON."""
    if isinstance(result, str):
        return ToolOutput(result)
    if isinstance(result, bytes | bytearray):
        return ToolOutput(bytes_to_text(bytes(result)))
    if result is None:
        return ToolOutput("Done.")
    from pydantic_core import to_json, to_jsonable_python

    try:
        return ToolOutput(to_json(result, fallback=str).decode())
    except ValueError:  # a surrogate, or bytes that are not UTF-8, inside
        plain = to_jsonable_python(result, fallback=str, bytes_mode="base64")
        return ToolOutput(json.dumps(plain, ensure_ascii=False, separators=(",", ":")))


def _describe_errors(name: str, error: ValidationError) -> str:
    """What is wrong with the arguments, in one line for the model."""
    problems = []
    for problem in error.errors(include_url=False):
        location = ".".join(map(str, problem["loc"]))
        value = "" if problem["type"] == "missing" else f" (given: {_shortened(problem['input'])})"
        problems.append(f"{location}: {problem['msg']}{value}")
    return f"The arguments of {name} are wrong. {'; '.join(problems[:10])}."


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
