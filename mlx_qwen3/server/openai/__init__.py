"""Chat completions, completions, embeddings and models as of OpenAI; reranking; tokens as of llama.cpp."""

from mlx_qwen3.server.openai.errors import error_body as error_body
from mlx_qwen3.server.openai.routes import PROTOCOL as PROTOCOL
