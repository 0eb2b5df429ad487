"""From a name to a model: finds the folder, validates its files, and loads the weights the model needs."""

from mlx_qwen3.checkpoint.catalog import FAMILY as FAMILY
from mlx_qwen3.checkpoint.catalog import SHORT_NAMES as SHORT_NAMES
from mlx_qwen3.checkpoint.catalog import FamilyMember as FamilyMember
from mlx_qwen3.checkpoint.context_length import config_for_context as config_for_context
from mlx_qwen3.checkpoint.load import load_config as load_config
from mlx_qwen3.checkpoint.load import load_model as load_model
from mlx_qwen3.checkpoint.locate import resolve as resolve
from mlx_qwen3.checkpoint.transfer.transfer import OnDownload as OnDownload
from mlx_qwen3.checkpoint.validation import expected_tensors as expected_tensors
