"""OpenAI's API: chat completions, completions, models; and llama.cpp's tokenize and detokenize."""

from mlx_qwen3.server.openai.errors import error_body as error_body
from mlx_qwen3.server.openai.routes import PROTOCOL as PROTOCOL
