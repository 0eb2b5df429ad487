"""A model over several ranks on this machine, beside mlx-lm's sharded run on the same files.

    python -m benchmarks.distributed --shape 0.6b --layers 4 --bits 32 --ranks 2 --repeat 3
    python -m benchmarks.distributed --shape 0.6b --layers 4 --delay 1 --rate 125
    python -m benchmarks.distributed --shape 0.6b --own --count  # ours alone; the ring's bytes are counted
    python -m benchmarks.distributed --links           # the table of docs/distributed.md, computed
    python -m benchmarks.distributed --limits          # what mlx-lm's sharded run does not do
    python -m benchmarks.distributed --faults 20       # kill and stop a rank, so often in each phase
    python -m benchmarks.distributed --requests 10000  # of mixed kinds, with memory and step counters
    python -m benchmarks.distributed --cable           # two network namespaces: 1 ms of delay, 1 % lost
    python -m benchmarks.distributed --partition tensor  # the same, and nothing arrives any more

Ranks are processes connected by MLX's ring over loopback, or through a proxy that counts, delays (`--delay`,
ms one way) and limits (`--rate`, MB/s) each connection. Engines alternate; the table has medians. On one
machine the ranks share the cores that one process had to itself, so only ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

TOKENS = 8
SECONDS = 900


def worker(engine: str, folder: str, mode: str, prompt: int) -> None:
    """One rank: prints figures on rank 0, and every rank its peak memory."""
    figures = (ours if engine == "mlx-qwen3" else theirs)(folder, mode, prompt)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({**figures, "peak": peak}), flush=True)


def ours(folder: str, mode: str, prompt: int) -> dict[str, Any]:
    from mlx_qwen3 import Engine, SamplingParams
    from mlx_qwen3.engine.completion import Completion

    import mlx.core as mx  # isort: skip  # after ours

    try:
        engine = Engine(folder, distributed=None if mode == "alone" else mode, draft_model=None)
    except SystemExit:  # a follower, whose leader is done
        return {"arrays": mx.get_peak_memory()}

    params = SamplingParams(temperature=0, max_tokens=TOKENS, min_tokens=TOKENS)
    for _ in range(2):  # the first compiles kernels
        ids = [random.randrange(1000) for _ in range(prompt)]
        ranks: Any = engine._ranks
        sent = ranks.group.sent if ranks else 0.0
        *_, done = Completion(engine, ids, params).events()
        stats: Any = getattr(done, "stats", None)
        sent = (ranks.group.sent - sent) if ranks else 0.0
    result = {
        "prefill": stats.prompt_tokens_per_second,
        "decode": stats.tokens_per_second,
        "sent": sent,
        "sent in all": ranks.group.sent if ranks else 0.0,
        "arrays": mx.get_peak_memory(),
    }
    engine.close()
    return result


def theirs(folder: str, mode: str, prompt: int) -> dict[str, Any]:
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(folder), lazy=True)
    if mode != "alone":  # as mlx-lm's own `sharded_load`
        group = mx.distributed.init(strict=True)
        if mode == "tensor":
            model.shard(group)
        else:
            model.model.pipeline(group)
    mx.eval(model.parameters())
    ids = mx.array([random.Random(1).randrange(1000) for _ in range(prompt)])
    times: list[float] = []
    since = time.perf_counter()
    for _, _ in zip(range(TOKENS), generate_step(ids, model, max_tokens=TOKENS), strict=False):
        times.append(time.perf_counter())
    decode = (len(times) - 1) / (times[-1] - times[0])
    return {"prefill": prompt / (times[0] - since), "decode": decode, "arrays": mx.get_peak_memory()}


class Proxy:
    """Forwards TCP from a port of its own to `target`, delayed and no faster than `rate` bytes a second.

    Attributes:
        there, back: Bytes carried to the target and back.
    """

    def __init__(self, target: int, delay: float, rate: float | None):
        self._target, self._delay, self._rate = target, delay, rate
        self.there = self.back = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            while True:
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                    break
                except OSError:
                    time.sleep(0.05)
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._forward, args=(one, other, one is near), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_there: bool) -> None:
        free_at = 0.0
        while data := source.recv(1 << 16):
            if is_there:
                self.there += len(data)
            else:
                self.back += len(data)
            now = time.perf_counter()
            free_at = max(now, free_at) + (len(data) / self._rate if self._rate else 0.0)
            time.sleep(max(0.0, free_at + self._delay - now))
            target.sendall(data)
        target.close()


def bytes_of(proxies: list[Proxy]) -> list[int]:
    """Bytes that each rank of a ring sent: to the next rank, which it connected to, and to the one before."""
    return [proxies[(rank + 1) % len(proxies)].there + proxies[rank].back for rank in range(len(proxies))]


def run_ranks(
    size: int,
    arguments: list[str],
    delay: float = 0.0,
    rate: float | None = None,
    proxies: list[Proxy] | None = None,
) -> list[Any]:
    """Start the ranks, each with a ring file in which its neighbours may be behind proxies.

    proxies: is given them; None puts none there if nothing is to be delayed or limited.
    """
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
    ports = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    folder = Path(tempfile.mkdtemp())
    seen = ports
    if delay or rate or proxies is not None:
        made = [Proxy(port, delay, rate) for port in ports]
        seen = [proxy.port for proxy in made]
        if proxies is not None:
            proxies += made
    processes = []
    for rank in range(size):
        ring = [[f"127.0.0.1:{port if other == rank else seen[other]}"] for other, port in enumerate(ports)]
        path = folder / f"{rank}.json"
        path.write_text(json.dumps(ring))
        environment = {**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(path)}
        if size == 1:
            environment = dict(os.environ)
        command = [sys.executable, "-m", "benchmarks.distributed", *arguments]
        processes.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    return processes


def figures_of(processes: list[Any]) -> list[dict[str, Any]]:
    results = []
    for process in processes:
        out, error = process.communicate(timeout=SECONDS)
        if process.returncode:
            raise SystemExit(f"a rank failed: {error[-2000:]}")
        results.append(json.loads(out.strip().splitlines()[-1]))
    return results


def compare(options: argparse.Namespace) -> None:
    from mlx_qwen3.model.config import ModelConfig

    folder = make(options)
    config = ModelConfig.from_file(folder / "config.json")
    runs: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}
    cases = [("mlx-qwen3", mode) for mode in ("alone", "tensor", "pipeline")]
    if not options.own:
        cases += [("mlx-lm", "alone"), ("mlx-lm", "tensor")]
        cases += [("mlx-lm", "pipeline")] if config.num_experts else []  # dense models have none there
    for number in range(options.repeat):
        for engine, mode in cases:
            size = 1 if mode == "alone" else options.ranks
            arguments = ["--worker", engine, str(folder), mode, str(options.prompt)]
            proxies: list[Proxy] | None = [] if options.count and size > 1 else None
            rate = options.rate and options.rate * 1e6
            figures = figures_of(run_ranks(size, arguments, options.delay / 1000, rate, proxies))
            runs.setdefault((engine, mode), []).append(figures)
            print(
                f"run {number + 1}, {engine} {mode}: {figures[0]['prefill']:.2f} and "
                f"{figures[0]['decode']:.2f} tokens/s",
                flush=True,
            )
            if proxies and engine == "mlx-qwen3":
                print(
                    f"the ring carried {', '.join(f'{sent:,}' for sent in bytes_of(proxies))} bytes from its "
                    f"ranks; rank 0 counts {figures[0]['sent in all']:,.0f}"
                )
    print(f"{'':24}prefill tok/s  decode tok/s  peak MB of arrays (of the process)  sent/token  predicted")
    for (engine, mode), all_runs in runs.items():
        first = [ranks[0] for ranks in all_runs]
        peaks = "  ".join(
            f"{median(run[rank]['arrays'] for run in all_runs) / 1e6:.0f}"
            f" ({median(run[rank]['peak'] for run in all_runs) / 1e6:.0f})"
            for rank in range(len(all_runs[0]))
        )
        sent = ""
        if engine == "mlx-qwen3" and mode != "alone":
            from mlx_qwen3.distributed.speed import traffic

            prompt = traffic(config, mode, options.ranks, options.prompt, 4).nbytes
            token = traffic(config, mode, options.ranks, 1, 4).nbytes
            # The pass after the last token has begun when that is known.
            sent = f"{(first[0]['sent'] - prompt) / TOKENS:12,.0f} {token:10,.0f}"
        print(
            f"{engine:12}{mode:12}{median(f['prefill'] for f in first):12.2f}"
            f"{median(f['decode'] for f in first):14.2f}  {peaks:34}{sent}"
        )


def make(options: argparse.Namespace) -> Path:
    """A checkpoint of random weights."""
    from mlx_qwen3 import bench

    parent = Path(tempfile.gettempdir()) / "mlx-qwen3-bench"
    folder = bench.make_checkpoint(options.shape, min(options.bits, 16), parent, layers=options.layers)
    if options.bits == 32:
        folder = in_fp32(folder)
    if not (folder / "tokenizer.json").exists():  # any will do: ids go in, and ids come out
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        from scripted import write_byte_tokenizer

        write_byte_tokenizer(folder)
    return folder


def in_fp32(folder: Path) -> Path:
    """The same checkpoint in 32-bit numbers."""
    import mlx.core as mx

    target = folder.with_name(f"{folder.name}-fp32")
    if not (target / "config.json").exists():
        target.mkdir(exist_ok=True)
        for file in folder.glob("*.safetensors"):
            loaded: Any = mx.load(str(file))
            wide = {name: value.astype(mx.float32) for name, value in loaded.items()}
            mx.save_safetensors(str(target / file.name), wide, {"format": "mlx"})
        for file in folder.iterdir():
            if file.suffix in (".json", ".jinja"):
                (target / file.name).write_bytes(file.read_bytes())
    return target


def links() -> None:
    """Tokens a second of one text over each link, for machines that read 400 GB/s."""
    from mlx_qwen3.checkpoint import FAMILY
    from mlx_qwen3.distributed.plan import plan_tensor
    from mlx_qwen3.distributed.speed import LINKS, seconds_per_token, traffic
    from mlx_qwen3.errors import DistributedError

    for name in ("14b", "32b", "235b-a22b"):
        config = FAMILY[name].config
        alone = config.num_active_parameters * 4.5 / 8 / 400e9
        print(f"\n{name}: one machine {1 / alone:.1f} tokens/s")
        print(f"{'':22}" + "".join(f"{size:>9}" for size in (2, 3, 4, 8)) + "    pipeline of 2")
        for link in LINKS:
            row = ""
            for size in (2, 3, 4, 8):
                try:
                    plan_tensor(config, size)
                    row += f"{1 / seconds_per_token(config, 'tensor', size, link, alone):9.1f}"
                except DistributedError:
                    row += f"{'-':>9}"
            print(f"{link.name:22}{row}{1 / seconds_per_token(config, 'pipeline', 2, link, alone):17.1f}")
        sent = traffic(config, "tensor", 2)
        print(f"a token: {sent.nbytes / 1e3:,.0f} kB sent in {sent.steps} steps by each of 2 ranks")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", nargs=4)
    parser.add_argument("--requests-worker", nargs=3)
    parser.add_argument("--faults-worker", nargs=4)
    parser.add_argument("--limits-worker", nargs=3)
    parser.add_argument("--shape", default="0.6b")
    parser.add_argument("--bits", type=int, default=4, help="16 is bf16, 32 is fp32")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.0, help="ms, one way")
    parser.add_argument("--rate", type=float, help="MB/s")
    parser.add_argument("--own", action="store_true", help="leave mlx-lm out")
    parser.add_argument("--count", action="store_true", help="count what the ring carries")
    parser.add_argument("--links", action="store_true")
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--faults", type=int)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--mode", choices=("tensor", "pipeline"), default="tensor", help="of --requests")
    parser.add_argument("--cable", action="store_true")
    parser.add_argument("--loss", type=float, default=1.0, help="percent, of --cable")
    parser.add_argument("--partition", choices=("tensor", "pipeline"))
    options = parser.parse_args()
    if not (run_worker(options) or run_other(options)):
        compare(options)


def run_worker(options: argparse.Namespace) -> bool:
    """Be one rank of what another process measures; False if this is not one."""
    from benchmarks import distributed_faults, distributed_peer, distributed_requests

    if options.worker:
        engine, folder, mode, prompt = options.worker
        worker(engine, folder, mode, int(prompt))
    elif options.requests_worker:
        folder, mode, count = options.requests_worker
        distributed_requests.worker(folder, mode, int(count))
    elif options.faults_worker:
        distributed_faults.worker(*options.faults_worker)
    elif options.limits_worker:
        engine, case, folder = options.limits_worker
        (distributed_peer.own if engine == "mlx-qwen3" else distributed_peer.peer)(case, folder)
    else:
        return False
    return True


def run_other(options: argparse.Namespace) -> bool:
    """Measure what is no comparison of speeds; False if a comparison was asked for."""
    from benchmarks import distributed_cables, distributed_faults, distributed_peer, distributed_requests

    is_right = True
    if options.links:
        links()
    elif options.limits:
        distributed_peer.run(run_ranks)
    elif options.faults:
        is_right = distributed_faults.run(options.faults) == 0
    elif options.requests:
        is_right = distributed_requests.run(options.requests, options.mode, run_ranks)
    elif options.cable:
        is_right = distributed_cables.run(options.delay or 1.0, options.loss)
    elif options.partition:
        distributed_cables.partition(options.partition)
    else:
        return False
    if not is_right:
        sys.exit("not as it should be")
    return True


if __name__ == "__main__":
    main()
