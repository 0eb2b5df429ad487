"""Fine-tuning: trains a LoRA or DoRA adapter with mlx-lm's trainer."""

from mlx_qwen3.finetuning.options import FinetuneOptions as FinetuneOptions
from mlx_qwen3.finetuning.train import FinetuneReport as FinetuneReport
from mlx_qwen3.finetuning.train import finetune as finetune
