"""How fast a model runs here, alone or beside mlx-lm: `run` measures, `Result` says it."""

from mlx_qwen3.bench.measure import ENGINES as ENGINES
from mlx_qwen3.bench.measure import Work as Work
from mlx_qwen3.bench.measure import run as run
from mlx_qwen3.bench.plot import check_plot as check_plot
from mlx_qwen3.bench.plot import plot as plot
from mlx_qwen3.bench.result import Result as Result
from mlx_qwen3.bench.shapes import SHAPES as SHAPES
from mlx_qwen3.bench.shapes import make_checkpoint as make_checkpoint
