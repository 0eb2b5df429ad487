"""Python functions as tools."""

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
    """A function the model may call; calling the object calls the function. Made by `@tool`."""

    def __init__(self, function: Callable[..., Any], name: str | None, timeout: float):
        if not callable(function):
            raise ToolError(f"@tool goes on a function, not on {type(function).__name__}")
        names = set(inspect.signature(function).parameters)
        description, docs = read_docstring(function.__doc__ or "", names)
        self._model = arguments_model(function, docs)
        super().__init__(name or function.__name__, description, json_schema(self._model))
        self.function, self.timeout = function, timeout
        functools.update_wrapper(cast("Callable[..., Any]", self), function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    async def call(self, arguments: dict[str, Any]) -> ToolOutput:
        """Check `arguments` against the function's types, run it, and give back its result as text.

        A function that is not async runs in a thread of its own, which nothing can stop: after the
        time limit it is left behind.
        """
        from pydantic import ValidationError

        try:
            values = self._values(arguments)
        except ValidationError as error:
            return ToolOutput(_explain(self.name, error), is_error=True)
        try:
            async with asyncio.timeout(self.timeout) as limit:
                return ToolOutput(_to_text(await self._run(values)))
        except Exception as error:  # noqa: BLE001  whatever a tool raises, the model is told
            if limit.expired():
                return ToolOutput(
                    f"{self.name} did not finish within {self.timeout:g} seconds.", is_error=True
                )
            return ToolOutput(f"{type(error).__name__}: {error}", is_error=True)

    def _values(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the function wants them; those not given are left to its defaults."""
        checked = self._model.model_validate(arguments)
        fields = type(checked).model_fields
        return {str(fields[key].alias): getattr(checked, key) for key in checked.model_fields_set}

    async def _run(self, values: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**values)
        result = await _in_thread(functools.partial(self.function, **values), self.name)
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

    Its docstring is the description; lines such as `city: the city's name` describe parameters.
    Raises ToolError for a parameter without a type, or of a type JSON cannot describe.
    """
    if function is None:
        return lambda decorated: FunctionTool(decorated, name, timeout)
    return FunctionTool(function, name, timeout)


def _in_thread(function: Callable[[], Any], name: str) -> Awaitable[Any]:
    """Run `function` in a daemon thread; unlike a pool's, it keeps nobody from leaving."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001  handed to who waits
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=f"tool {name}", daemon=True).start()
    return future


def _to_text(result: Any) -> str:
    if isinstance(result, str):
        return result
    if result is None:
        return "Done."
    from pydantic_core import to_json

    return to_json(result, fallback=str).decode()


def _explain(name: str, error: ValidationError) -> str:
    """What is wrong with the arguments, in one line for the model."""
    problems = []
    for problem in error.errors(include_url=False):
        where = ".".join(map(str, problem["loc"]))
        given = "" if problem["type"] == "missing" else f" (given: {_short(problem['input'])})"
        problems.append(f"{where}: {problem['msg']}{given}")
    return f"The arguments of {name} are wrong. {'; '.join(problems[:10])}."


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
