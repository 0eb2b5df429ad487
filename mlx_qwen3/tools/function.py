"""Python functions as tools: `@tool`, checking the arguments, running the function."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast, overload

from mlx_qwen3.tools.base import Tool, ToolError, ToolOutput
from mlx_qwen3.tools.function_schema import arguments_model, json_schema, read_docstring

if TYPE_CHECKING:
    from pydantic import ValidationError

DEFAULT_TIMEOUT = 60.0


class FunctionTool(Tool):
    """A Python function the model may call; made by `@tool`. Calling the object calls the function.

    Args:
        function: A function whose parameters all have types.
        name: The tool's name; None for the function's name.
        timeout: The seconds a call may take.

    Raises:
        ToolError: As `tool`.
    """

    def __init__(self, function: Callable[..., Any], name: str | None, timeout: float):
        if not callable(function):
            raise ToolError(f"@tool goes on a function, not on {type(function).__name__}")
        _check_options(name, timeout)
        names = set(inspect.signature(function).parameters)
        description, parameter_docs = read_docstring(function.__doc__ or "", names)
        self._model = arguments_model(function, parameter_docs)
        super().__init__(name or function.__name__, description, json_schema(self._model))
        self.function, self.timeout = function, timeout
        functools.update_wrapper(cast("Callable[..., Any]", self), function)

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
            checked = self._check_arguments(arguments)
        except ValidationError as error:
            return ToolOutput(_describe_errors(self.name, error), is_error=True)
        try:
            async with asyncio.timeout(self.timeout) as limit:
                return ToolOutput(_to_text(await self._run(checked)))
        except Exception as error:  # noqa: BLE001  the model is told whatever a tool raises
            if limit.expired():
                return ToolOutput(
                    f"{self.name} did not finish within {self.timeout:g} seconds.", is_error=True
                )
            return ToolOutput(f"{type(error).__name__}: {error}", is_error=True)

    def _check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments converted to the function's types. Missing ones are left to its defaults."""
        checked = self._model.model_validate(arguments)
        fields = type(checked).model_fields
        return {str(fields[key].alias): getattr(checked, key) for key in checked.model_fields_set}

    async def _run(self, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**arguments)
        result = await _run_in_thread(functools.partial(self.function, **arguments), self.name)
        return await result if inspect.isawaitable(result) else result


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
        function: A function whose parameters all have types. It may be async.
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


def _run_in_thread(function: Callable[[], Any], name: str) -> Awaitable[Any]:
    """Run `function` in a daemon thread. The threads of a pool would delay the end of the program."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001  raised where the future is awaited
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=f"tool {name}", daemon=True).start()
    return future


def _to_text(result: Any) -> str:
    """A function's result for the model: text as it is, all else as JSON."""
    if isinstance(result, str):
        return result
    if result is None:
        return "Done."
    from pydantic_core import to_json

    return to_json(result, fallback=str).decode()


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
