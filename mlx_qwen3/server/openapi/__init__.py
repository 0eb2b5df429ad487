"""/openapi.json: the server's endpoints, requests and answers in the form of OpenAPI 3.1."""

from mlx_qwen3.server.openapi.document import document, openapi_routes

__all__ = ["document", "openapi_routes"]
