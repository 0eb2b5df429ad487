"""MCP content as text. The model reads text only, so images, sound and files are named."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from mlx_qwen3.tools.base import ToolOutput
from mlx_qwen3.tools.output_text import size_text


def to_output(result: CallToolResult) -> ToolOutput:
    """The result of a call: its content, or its structured content as JSON if that is all there is."""
    text = to_text(result.content)
    if not text.strip() and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    if not text.strip():
        text = "It failed and did not say why." if result.is_error else "Done."
    return ToolOutput(text, result.is_error)


def to_text(blocks: Iterable[ContentBlock]) -> str:
    """The text of content blocks, one below the other."""
    return "\n".join(map(_block_text, blocks))


def _block_text(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.mime_type or block.type}, {_size(block.data)}]"
        case ResourceLink():
            details = [block.title or block.name, block.mime_type or "", block.description or ""]
            return f"[resource {block.uri}: {', '.join(filter(None, details))}]"
        case EmbeddedResource():
            return resource_text(block.resource)


def resource_text(resource: TextResourceContents | BlobResourceContents) -> str:
    """The text of a resource below its address."""
    if isinstance(resource, TextResourceContents):
        return f"[resource {resource.uri}]\n{resource.text}"
    kind = resource.mime_type or "of unknown type"
    return f"[resource {resource.uri}, {kind}, {_size(resource.blob)}]"


def _size(base64: str) -> str:
    return size_text(len(base64.rstrip("=")) * 3 // 4)
