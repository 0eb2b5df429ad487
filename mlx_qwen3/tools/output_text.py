"""Text of tool results: exceptions, text that is not valid Unicode, and data that is not text."""

from __future__ import annotations

from mlx_qwen3.tools.base import ToolOutput

_FILE_STARTS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"%PDF-": "application/pdf",
}


def error_output(error: BaseException) -> ToolOutput:
    """The result of a tool that raised `error`: the exception's type and message."""
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001  `__str__` belongs to the tool too and may raise anything
        message = ""
    return ToolOutput(f"{name}: {message}" if message else name, is_error=True)


def without_surrogates(text: str) -> str:
    """`text` with U+FFFD in place of surrogates without a partner, which UTF-8 cannot encode."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def bytes_to_text(data: bytes) -> str:
    """UTF-8 bytes as text; other data named by its type and size."""
    for start, mime_type in _FILE_STARTS.items():
        if data.startswith(start):
            return f"[{mime_type}, {size_text(len(data))}]"
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"[application/octet-stream, {size_text(len(data))}]"


def size_text(size: int) -> str:
    """A size in bytes for a reader: "6 bytes", "12 KB", "3.4 MB"."""
    if size < 1000:
        return f"{size} byte" if size == 1 else f"{size} bytes"
    if size < 999_500:
        return f"{size / 1000:.0f} KB"
    return f"{size / 1e6:.1f} MB"
