"""RequestError: what a client is told, whatever the protocol; and the HTTP status of the package's errors."""

from __future__ import annotations

from mlx_qwen3.errors import (
    EngineError,
    InsufficientMemoryError,
    ModelNotFoundError,
    PromptTooLongError,
    Qwen3Error,
    one_line,
)

MAX_MESSAGE = 500  # characters


class RequestError(Exception):
    """A request that gets no answer.

    Attributes:
        status: The HTTP status.
        message: One line for a person.
        param: The field of the request that is wrong, such as `messages[0].content`.
        code: A short name for programs, such as `unknown_field`.
        retry_after: Seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.message = status, one_line(message, MAX_MESSAGE)
        self.param, self.code, self.retry_after = param, code, retry_after


def bad_request(message: str, param: str | None = None, code: str | None = None) -> RequestError:
    """A 400: `param` cannot be used as it is."""
    return RequestError(400, message, param=param, code=code)


def as_request_error(error: BaseException) -> RequestError:
    """`error` as a client is told. What is no error of the package's own is a 500 without details."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, PromptTooLongError):
        return RequestError(400, str(error), code="context_length_exceeded")
    if isinstance(error, ModelNotFoundError):
        return RequestError(404, str(error), param="model", code="model_not_found")
    if isinstance(error, InsufficientMemoryError):
        return RequestError(503, str(error), code="insufficient_memory", retry_after=30)
    if isinstance(error, EngineError):
        return RequestError(503, str(error), code="engine_unavailable")
    if isinstance(error, Qwen3Error):
        return RequestError(400, str(error))
    return RequestError(500, f"the server failed: {type(error).__name__}", code="internal_error")
