"""LoRA and DoRA adapters of mlx-lm and PEFT: read, checked, put on a loaded model."""

from mlx_qwen3.adapters.apply import adapted_modules as adapted_modules
from mlx_qwen3.adapters.apply import add_adapter as add_adapter
from mlx_qwen3.adapters.read import read_adapter as read_adapter
from mlx_qwen3.adapters.share import adapter_share as adapter_share
