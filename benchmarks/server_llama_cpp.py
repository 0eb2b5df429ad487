"""llama.cpp's server for a checkpoint of ours, as another process that the benchmarks of servers start.

    python -m benchmarks.server_llama_cpp [--model demo] [--port 8081] [--kind Q4_0] [--parallel 16]

The weights and the tokenizer are written as GGUF, so it answers the same texts as the checkpoint, up to what
`--kind` rounds. The server is llama.cpp's own, by the wheel `xllamacpp`. Needs xllamacpp and gguf.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.bench.llama_cpp import add_sizes

MODEL_CONTEXT = 1024  # tokens of each of the texts that are generated together


def write_gguf(folder: Path, path: Path, kind: str) -> None:
    """The checkpoint in `folder` as a GGUF file whose matrices are of `kind`, such as Q4_0 or BF16."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(path), "qwen3")
    add_sizes(writer, config)
    _add_tokenizer(writer, folder, config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for name, values in _tensors(folder, config):
        stored = names.get_name(name, try_suffixes=(".weight",))
        assert stored is not None, f"GGUF has no name for {name}"
        if values.ndim == 1:
            writer.add_tensor(stored, values)
            continue
        quantized = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(stored, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values in fp32."""
    quantization = config.get("quantization")
    for file in sorted(folder.glob("model*.safetensors")):
        arrays: dict[str, Any] = dict(mx.load(str(file)))  # type: ignore[arg-type]
        for name, array in arrays.items():
            stem, _, suffix = name.rpartition(".")
            if suffix in ("scales", "biases"):
                continue
            if quantization is not None and f"{stem}.scales" in arrays:
                array = mx.dequantize(
                    array,
                    arrays[f"{stem}.scales"],
                    arrays[f"{stem}.biases"],
                    group_size=quantization["group_size"],
                    bits=quantization["bits"],
                )
            yield name, np.array(array.astype(mx.float32))


def _add_tokenizer(writer: Any, folder: Path, size: int) -> None:
    import gguf

    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    kinds = [gguf.TokenType.UNUSED] * size
    tokens = [f"[PAD{number}]" for number in range(size)]
    for text, number in described["model"]["vocab"].items():
        tokens[number], kinds[number] = text, gguf.TokenType.NORMAL
    for added in described["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], kind
    merges = [each if isinstance(each, str) else " ".join(each) for each in described["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index(settings["eos_token"]))
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))


def serve(path: Path, port: int, parallel: int, context: int, threads: int) -> None:
    """Serve the file until the process is told to end."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.port = port
    params.n_parallel = parallel
    params.n_ctx = context * parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.verbosity = -1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--kind", default="Q4_0", help="of the matrices: Q4_0, Q4_1, Q8_0 or BF16")
    parser.add_argument("--parallel", type=int, default=16, help="texts that are generated together")
    parser.add_argument("--context", type=int, default=MODEL_CONTEXT, help="tokens of each of these texts")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    from mlx_qwen3.checkpoint import resolve

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(Path(resolve(options.model)), path, options.kind)
        serve(path, options.port, options.parallel, options.context, options.threads)


if __name__ == "__main__":
    main()
