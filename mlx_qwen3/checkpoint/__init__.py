"""From a name to a model: find the folder, check its files, load exactly what the model needs."""

from mlx_qwen3.checkpoint.context import config_for_context as config_for_context
from mlx_qwen3.checkpoint.expectation import expected_tensors as expected_tensors
from mlx_qwen3.checkpoint.family import FAMILY as FAMILY
from mlx_qwen3.checkpoint.family import SHORT_NAMES as SHORT_NAMES
from mlx_qwen3.checkpoint.family import FamilyMember as FamilyMember
from mlx_qwen3.checkpoint.find import OnDownload as OnDownload
from mlx_qwen3.checkpoint.find import resolve as resolve
from mlx_qwen3.checkpoint.load import load_config as load_config
from mlx_qwen3.checkpoint.load import load_model as load_model
