"""A model over several ranks on this machine, beside mlx-lm's sharded run on the same files.

    python -m benchmarks.distributed --shape 0.6b --layers 4 --ranks 2 --repeat 3
    python -m benchmarks.distributed --shape 0.6b --layers 4 --delay 1 --rate 125
    python -m benchmarks.distributed --links           # the table of docs/distributed.md, computed
    python -m benchmarks.distributed --faults 20       # kill and stop a rank, so often each
    python -m benchmarks.distributed --requests 10000  # of mixed kinds, with memory and step counters
    python -m benchmarks.distributed --partition tensor  # cut the cable between two network namespaces

Ranks are processes connected by MLX's ring over loopback, or through a proxy that delays (`--delay`, ms one
way) and limits (`--rate`, MB/s) each connection. Engines alternate; the table has medians. On a machine with
as many cores as ranks the ranks share what one process had to itself, so only ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
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
        "arrays": mx.get_peak_memory(),
    }
    engine.close()
    return result


def theirs(folder: str, mode: str, prompt: int) -> dict[str, Any]:
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(folder), lazy=True)
    if mode != "alone":
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
    """Forwards TCP from a port of its own to `target`, delayed and no faster than `rate` bytes a second."""

    def __init__(self, target: int, delay: float, rate: float | None):
        self._target, self._delay, self._rate = target, delay, rate
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
                threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        free_at = 0.0
        while data := source.recv(1 << 16):
            now = time.perf_counter()
            free_at = max(now, free_at) + (len(data) / self._rate if self._rate else 0.0)
            time.sleep(max(0.0, free_at + self._delay - now))
            target.sendall(data)
        target.close()


def run_ranks(size: int, arguments: list[str], delay: float = 0.0, rate: float | None = None) -> list[Any]:
    """Start the ranks, each with a ring file in which its neighbours may be behind proxies."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
    ports = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    folder = Path(tempfile.mkdtemp())
    seen = [Proxy(port, delay, rate).port if delay or rate else port for port in ports]
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
    cases += [("mlx-lm", "alone"), ("mlx-lm", "tensor")]
    for _ in range(options.repeat):
        for engine, mode in cases:
            size = 1 if mode == "alone" else options.ranks
            arguments = ["--worker", engine, str(folder), mode, str(options.prompt)]
            ranks = run_ranks(size, arguments, options.delay / 1000, options.rate and options.rate * 1e6)
            runs.setdefault((engine, mode), []).append(figures_of(ranks))
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

    folder = bench.make_checkpoint(
        options.shape, options.bits, Path(tempfile.gettempdir()) / "mlx-qwen3-bench"
    )
    if options.layers:
        folder = fewer_layers(folder, options.layers)
    if not (folder / "tokenizer.json").exists():  # any will do: ids go in, and ids come out
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        from scripted import write_byte_tokenizer

        write_byte_tokenizer(folder)
    return folder


def fewer_layers(folder: Path, layers: int) -> Path:
    """The same checkpoint with its first layers only."""
    import mlx.core as mx

    target = folder.with_name(f"{folder.name}-{layers}-layers")
    if not (target / "config.json").exists():
        target.mkdir(exist_ok=True)
        tensors: dict[str, mx.array] = {}
        for file in folder.glob("*.safetensors"):
            loaded: Any = mx.load(str(file))
            tensors |= loaded
        kept = {n: t for n, t in tensors.items() if ".layers." not in n or int(n.split(".")[2]) < layers}
        mx.save_safetensors(str(target / "model.safetensors"), kept, {"format": "mlx"})
        for file in folder.iterdir():
            if file.suffix in (".json", ".jinja", ".txt") and not file.name.endswith("index.json"):
                (target / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": layers}
        (target / "config.json").write_text(json.dumps(config))
    return target


def faults(count: int) -> None:
    """Kill and stop each rank, while a prompt is fed and while tokens come; the others must end in 15 s."""
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root / "tests"))
    from distributed.ranks import start_ranks
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import DENSE, write_checkpoint

    folder = Path(tempfile.mkdtemp())
    write_checkpoint(folder / "m", DENSE | {"vocab_size": 320})
    write_byte_tokenizer(folder / "m")
    slowest: dict[str, float] = {}
    for blow in (signal.SIGKILL, signal.SIGSTOP):
        for number in range(count):
            phase, mode = ("prefill", "decode")[number % 2], ("tensor", "pipeline")[number // 2 % 2]
            victim = number // 4 % 2
            arguments = [str(root / "tests/distributed/endless.py"), str(folder / "m"), mode, phase]
            ranks = start_ranks(2, folder, arguments, MLX_QWEN3_PLAIN="1")
            assert ranks[0].stdout is not None
            assert ranks[0].stdout.readline() == "begun\n"
            time.sleep(random.random())
            os.kill(ranks[victim].pid, blow)
            since = time.perf_counter()
            _, error = ranks[1 - victim].communicate(timeout=60)
            seconds = time.perf_counter() - since
            ranks[victim].kill()
            ranks[victim].communicate()
            lines = [line for line in error.splitlines() if not line.startswith("[ring]")]
            ok = len(lines) == 1 and lines[0].startswith(f"error: rank {victim} (") and seconds < 15
            slowest[blow.name] = max(slowest.get(blow.name, 0.0), seconds)
            print(
                f"{blow.name} {mode} {phase} rank {victim}: {seconds:.1f} s {'' if ok else error}", flush=True
            )
            if not ok:
                raise SystemExit("a rank did not end as it should")
    print("slowest:", {name: f"{seconds:.1f} s" for name, seconds in slowest.items()})


def partition(mode: str) -> None:
    """Two ranks in network namespaces of their own, connected by a cable that is then cut. Needs root."""
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root / "tests"))
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import DENSE, write_checkpoint

    folder = Path(tempfile.mkdtemp())
    write_checkpoint(folder / "m", DENSE | {"vocab_size": 320})
    write_byte_tokenizer(folder / "m")
    (folder / "ring.json").write_text(json.dumps([["10.213.7.1:24001"], ["10.213.7.2:24002"]]))
    names = [f"mlxq{os.getpid()}r{rank}" for rank in range(2)]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            "cable0",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "cable1",
            "netns",
            names[1],
        )
        for rank, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.213.7.{rank + 1}/24", "dev", f"cable{rank}")
            ip("-n", name, "link", "set", f"cable{rank}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        path = os.pathsep.join([str(root), str(root / "tests")])
        base = {**os.environ, "MLX_HOSTFILE": str(folder / "ring.json"), "PYTHONPATH": path}
        endless = [
            sys.executable,
            str(root / "tests/distributed/endless.py"),
            str(folder / "m"),
            mode,
            "decode",
        ]
        ranks = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, *endless],
                env={**base, "MLX_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, name in enumerate(names)
        ]
        assert ranks[0].stdout is not None
        assert ranks[0].stdout.readline() == "begun\n"
        time.sleep(1)
        ip("-n", names[0], "link", "set", "cable0", "down")
        since = time.perf_counter()
        for number, process in enumerate(ranks):
            _, error = process.communicate(timeout=60)
            print(f"rank {number}, {time.perf_counter() - since:.1f} s after the cut: {error.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def requests_worker(folder: str, mode: str, count: int) -> None:
    """Rank 0 sends requests of mixed kinds, and prints memory and step counters now and then."""
    import psutil

    from mlx_qwen3 import Engine
    from mlx_qwen3.engine.batch import BatchRequest

    with Engine(folder, distributed=mode) as engine:
        process, draw, done = psutil.Process(), random.Random(0), 0
        while done < count:
            texts = ["abc " * draw.randrange(1, 30) for _ in range(draw.randrange(1, 12))]
            batch = [
                BatchRequest(prompt=text, sampling={"max_tokens": draw.randrange(1, 6)}) for text in texts
            ]
            run = engine.generate_batch(batch)
            for number, _ in enumerate(run):
                if number == 5 and draw.random() < 0.3:
                    run.cancel()
            if draw.random() < 0.2:
                session = engine.session(thinking=draw.random() < 0.5, sampling={"max_tokens": 6})
                session.ask("x " * draw.randrange(1, 50))
                session.ask("more")
                done += 2
            before, done = done, done + len(texts)
            if before // 500 != done // 500:
                ranks: Any = engine._ranks
                print(done, f"{process.memory_info().rss / 1e6:.0f} MB", ranks.health, flush=True)


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
    parser.add_argument("--shape", default="0.6b")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.0, help="ms, one way")
    parser.add_argument("--rate", type=float, help="MB/s")
    parser.add_argument("--links", action="store_true")
    parser.add_argument("--faults", type=int)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--partition", choices=("tensor", "pipeline"))
    options = parser.parse_args()
    if options.worker:
        engine, folder, mode, prompt = options.worker
        worker(engine, folder, mode, int(prompt))
    elif options.requests_worker:
        folder, mode, count = options.requests_worker
        requests_worker(folder, mode, int(count))
    elif options.links:
        links()
    elif options.faults:
        faults(options.faults)
    elif options.partition:
        partition(options.partition)
    elif options.requests:
        many_requests(options.requests)
    else:
        compare(options)


def many_requests(count: int) -> None:
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root / "tests"))
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import DENSE, write_checkpoint

    folder = Path(tempfile.mkdtemp()) / "m"
    write_checkpoint(folder, DENSE | {"vocab_size": 320, "max_position_embeddings": 4096})
    write_byte_tokenizer(folder)
    ranks = run_ranks(2, ["--requests-worker", str(folder), "tensor", str(count)])
    for line in ranks[0].stdout:
        memory = ""
        try:
            import psutil

            memory = f"rank 1: {psutil.Process(ranks[1].pid).memory_info().rss / 1e6:.0f} MB"
        except psutil.Error:
            pass
        print(line.strip(), memory, flush=True)
    for rank in ranks:
        _, error = rank.communicate()
        print(rank.returncode, error[-500:])


if __name__ == "__main__":
    main()
