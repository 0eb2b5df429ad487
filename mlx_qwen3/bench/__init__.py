"""Measures the speed and memory of a model: here, alone or beside mlx-lm, or over several machines."""

from mlx_qwen3.bench.machines import MachinesResult as MachinesResult
from mlx_qwen3.bench.machines import run_on_machines as run_on_machines
from mlx_qwen3.bench.measure import ENGINES as ENGINES
from mlx_qwen3.bench.measure import Workload as Workload
from mlx_qwen3.bench.measure import run as run
from mlx_qwen3.bench.plot import check_plot_path as check_plot_path
from mlx_qwen3.bench.plot import write_plot as write_plot
from mlx_qwen3.bench.result import Result as Result
from mlx_qwen3.bench.shapes import SHAPES as SHAPES
from mlx_qwen3.bench.shapes import make_checkpoint as make_checkpoint
