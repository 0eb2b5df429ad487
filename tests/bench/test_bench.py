"""`mlx-qwen3 bench`: the figures it works with, and one real run beside mlx-lm."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mlx_qwen3 import bench
from mlx_qwen3.bench import llama_cpp, shapes
from mlx_qwen3.bench.cost import Cost, cost_of
from mlx_qwen3.bench.measure import Workload
from mlx_qwen3.bench.plot import check_plot_path
from mlx_qwen3.bench.result import Result
from mlx_qwen3.bench.shapes import make_checkpoint
from mlx_qwen3.bench.worker import _prompt_in_time
from mlx_qwen3.checkpoint import load_config, resolve
from mlx_qwen3.cli.app import app
from mlx_qwen3.errors import BenchmarkError, CheckpointError

COST = Cost(weight_bytes=1000, kv_bytes=10, weight_flops=500, attention_flops=2)


def ran(prefill: float, decode: float, prompt_given: int = 100) -> dict[str, object]:
    case = {
        "prompt": 100,
        "batch": 1,
        "prompt_tokens": prompt_given,
        "decode_tokens": 20,
        "ttft_s": prompt_given / prefill,
        "decode_s": 20 / decode,
        "prefill_tok_s": prefill,
        "decode_tok_s": decode,
        "peak_bytes": 5e9,
    }
    return {"start_s": 1.0, "load_s": 0.5, "resident_bytes": 6e9, "cases": [case]}


def result(given: int = 100) -> Result:
    setup = {"work": {"tokens": 20, "repeat": 3}, "checkpoint": "some", "device": "this"}
    ours = [ran(rate, rate / 10) for rate in (200, 400, 300)]
    theirs = [ran(rate, rate / 10, given) for rate in (100, 160, 150)]
    runs = {"mlx-qwen3": ours, "mlx-lm": theirs}
    return Result(setup, {"bandwidth": 1e5, "arithmetic": 1e6}, COST, runs)


def test_medians_ratios_and_shares() -> None:
    rows = {row.name: row for row in result().rows()}
    prefill, decode = rows["prefill, 100 tokens"], rows["decode after 100 tokens"]
    assert prefill.medians == {"mlx-qwen3": 300, "mlx-lm": 150}
    assert prefill.ratio == 2
    assert prefill.shares["mlx-qwen3"] == pytest.approx(300 * (500 + 2 * 50) / 1e6)
    assert decode.shares["mlx-lm"] == pytest.approx(15 * (1000 + 110 * 10) / 1e5)
    assert rows["TTFT, 100 tokens"].ratio == pytest.approx(2)
    assert rows["load"].ratio == 1


def test_what_was_found_is_said_in_words() -> None:
    found, beside = result().words()
    assert found.startswith("a prompt of 100 tokens is read in 0.33 s, then 30 tokens come each second")
    assert found.endswith("of what this memory allows.")
    assert beside == "Beside mlx-lm: 2 times as fast at reading, 2 times as fast at writing."


def test_an_engine_that_was_given_less_is_named_and_its_ttft_not_compared() -> None:
    cut = result(given=7)
    rows = {row.name: row for row in cut.rows()}
    assert list(rows["TTFT, 100 tokens"].values) == ["mlx-qwen3"]
    assert rows["TTFT, 100 tokens"].ratio is None
    assert rows["prefill, 100 tokens"].ratio == 2
    assert list(cut.cuts()) == ["mlx-lm was given 7 of 100 prompt tokens, 20 of 20 answer tokens"]
    assert list(result().cuts()) == []


@pytest.mark.parametrize(("seconds_a_token", "given"), [(0.001, 512), (0.1, 200), (2.0, 10)])
def test_a_prompt_is_cut_to_the_time_it_may_take(seconds_a_token: float, given: int) -> None:
    """A fixed cost, as of reading all weights, makes an engine look slow on a few tokens."""

    def measure_case(prompt: int, batch: int, tokens: int) -> dict[str, float]:
        return {"ttft_s": prompt * seconds_a_token + 0.1}

    assert _prompt_in_time(measure_case, measure_case(4, 1, 1), 512, 30) == pytest.approx(given, rel=0.3)


def test_a_token_costs_what_it_reads_and_multiplies() -> None:
    demo = resolve("demo")
    config, cost = load_config(demo), cost_of(demo)
    assert cost.kv_bytes == 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    # Tied: every weight is read for a token; all but the embedding is multiplied for one of a prompt.
    assert cost.weight_bytes == pytest.approx((demo / "model.safetensors").stat().st_size, rel=0.03)
    without_head = config.num_parameters - config.vocab_size * config.hidden_size
    assert cost.weight_flops == pytest.approx(2 * without_head, rel=0.01)


def test_experts_count_as_far_as_they_are_chosen(tmp_path: Path) -> None:
    folder = make_checkpoint("tiny-moe", 4, tmp_path)
    assert make_checkpoint("tiny-moe", 4, tmp_path) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    config = load_config(folder)
    head = config.vocab_size * config.hidden_size
    active = cost_of(folder).weight_flops / 2 + 2 * head
    assert active == pytest.approx(config.num_active_parameters, rel=0.01)


@pytest.mark.parametrize(
    "workload", [Workload(prompts=[1]), Workload(batches=[0]), Workload(prompts=[10**6]), Workload(repeat=0)]
)
def test_an_impossible_workload_is_refused(workload: Workload) -> None:
    with pytest.raises(BenchmarkError):
        bench.run(resolve("demo"), workload)


def test_an_unknown_engine_or_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="'vllm' is none of mlx-qwen3, mlx-lm"):
        bench.run(resolve("demo"), Workload(), ["vllm"])
    with pytest.raises(BenchmarkError, match="'7b' is none of tiny"):
        make_checkpoint("7b", 4, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--model demo --shape 0.6b",
        "--shape 7b",
        "--shape tiny --bits 7",
        "--model demo --vs vllm",
        "--model demo --prompt many",
    ],
)
def test_wrong_usage(arguments: str) -> None:
    assert CliRunner().invoke(app, ["bench", *arguments.split()]).exit_code == 2


def test_demo_beside_mlx_lm(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.svg"
    arguments = ["--model", "demo", "--vs", "mlx-lm", "--prompt", "8", "--batch", "1,2", "--tokens", "2"]
    arguments += ["--repeat", "1", "--limit", "5", "--json", str(figures), "--plot", str(picture)]
    done = CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    for said in ("mlx-qwen3", "mlx-lm", "prefill, 2 x 8 tokens", "limits measured on"):
        assert said in done.output
    runs = json.loads(figures.read_text())["runs"]
    for engine in ("mlx-qwen3", "mlx-lm"):
        (run,) = runs[engine]
        assert 0 < run["load_s"] < run["start_s"]
        assert all(case["decode_tok_s"] > 0 for case in run["cases"])
    assert picture.read_text().startswith("<?xml")


def test_a_failed_process_is_reported_in_one_line() -> None:
    with pytest.raises(BenchmarkError, match="worker") as caught:
        bench.measure._json_from("-c", "import sys; sys.exit('no\\nworker')")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bits", "layers"), [(4, 2), (16, 2)])
def test_llama_cpp_gets_a_file_of_the_same_shape(
    bits: int, layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = pytest.importorskip("gguf")
    config = shapes.Shape.config_json  # with fewer words: reading a file of 151,936 takes the reader seconds
    monkeypatch.setattr(shapes.Shape, "config_json", lambda shape: {**config(shape), "vocab_size": 2048})
    folder = bench.make_checkpoint("tiny-moe", bits, tmp_path, layers=layers)
    path = llama_cpp.gguf_of(folder)
    assert llama_cpp.gguf_of(folder) == path
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    kind = {4: gguf.GGMLQuantizationType.Q4_0, 16: gguf.GGMLQuantizationType.BF16}[bits]
    assert tensors["blk.1.ffn_gate_exps.weight"].tensor_type == kind
    assert tensors["blk.1.ffn_gate_exps.weight"].shape.tolist() == [256, 192, 16]
    assert tensors["token_embd.weight"].shape.tolist() == [256, 2048]
    stored = sum(tensor.n_bytes for tensor in tensors.values())
    ours = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert stored == pytest.approx(ours, rel=0.05)


def test_llama_cpp_is_refused_what_it_is_not_compared_at(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    folder = bench.make_checkpoint("tiny", 3, tmp_path)
    for workload, said in (
        (bench.Workload([8], [2]), "one sequence"),
        (bench.Workload([9000], [1]), "8,192 tokens at most"),
        (bench.Workload([8], [1]), "4, 8 and 16 bits"),
    ):
        with pytest.raises(BenchmarkError, match=said):
            bench.run(folder, workload, ["mlx-qwen3", "llama.cpp"])


def test_a_plot_or_checkpoint_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path, monkeypatch
):
    for plot, said in ((tmp_path / "a.gif", "one of .png"), (tmp_path / "none" / "a.png", "no folder")):
        with pytest.raises(BenchmarkError, match=said):
            check_plot_path(plot)
    monkeypatch.setattr(bench.plot, "find_spec", lambda _: None)
    with pytest.raises(BenchmarkError, match=r"matplotlib: .*-m pip install"):
        check_plot_path(tmp_path / "a.png")
    monkeypatch.setattr(shapes.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(CheckpointError, match=r"would take 0\.3 GB and its disk has 0\.0 GB free"):
        make_checkpoint("0.6b", 4, tmp_path)
    assert not list(tmp_path.iterdir())
