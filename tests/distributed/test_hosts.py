"""The file of machines, and what is started on each."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlx_qwen3.cli.distributed.launch import command_of
from mlx_qwen3.distributed.hosts import read_hosts
from mlx_qwen3.distributed.start.addresses import rank_0_addresses
from mlx_qwen3.distributed.start.watcher import last_line
from mlx_qwen3.errors import DistributedError

RING = [
    {"ssh": "mac1", "ips": ["10.0.0.1", "10.0.1.1"]},
    {"ssh": "127.0.0.1", "ips": ["10.0.0.2"], "memory": 48.5},
]


def write(folder: Path, content: Any) -> Path:
    path = folder / "hosts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_ring(tmp_path: Path) -> None:
    hosts = read_hosts(write(tmp_path, RING))
    assert json.loads(hosts.file_content(5000)) == [["10.0.0.1:5000", "10.0.1.1:5001"], ["10.0.0.2:5002"]]
    variables = hosts.environment_of(1, 5000, "/tmp/f")
    assert variables == {"MLX_RANK": "1", "MLX_HOSTFILE": "/tmp/f", "MLX_QWEN3_MEMORY": "48.5GB"}


def test_jaccl(tmp_path: Path) -> None:
    raw = {
        "backend": "jaccl",
        "envs": ["A=b=c"],
        "hosts": [
            {"ssh": "a", "ips": ["10.0.0.1"], "rdma": [None, "rdma_en2"]},
            {"ssh": "b", "rdma": ["rdma_en3", None]},
        ],
    }
    hosts = read_hosts(write(tmp_path, raw))
    variables = hosts.environment_of(1, 5000, "/tmp/f")
    assert variables["MLX_JACCL_COORDINATOR"] == "10.0.0.1:5000"
    assert (variables["MLX_IBV_DEVICES"], variables["A"]) == ("/tmp/f", "b=c")
    assert json.loads(hosts.file_content(5000)) == [[None, "rdma_en2"], ["rdma_en3", None]]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "is not valid JSON"),
        ([{"ssh": "a", "ips": ["1.2.3.4"]}], "names 1 machines"),
        ({"hosts": 3}, "holds no list of machines"),
        ([{"ips": []}, {}], "machine 0 has no `ssh` name"),
        ([{"ssh": "-oProxyCommand=x", "ips": ["1.2.3.4"]}] * 2, "machine 0 has no `ssh` name"),
        ([{"ssh": "a"}, {"ssh": "b"}], "machine 0 has no address in `ips`"),
        ({"backend": "smoke", "hosts": RING}, "backend 'smoke' is not one of"),
        ({"backend": "jaccl", "hosts": RING}, "rdma must name a device for each of the 2 machines"),
        ([{**RING[0], "memory": "much"}, RING[1]], "memory must be a number of GB"),
        ({"envs": "A", "hosts": RING}, "envs must be a list"),
    ],
)
def test_bad_files_are_refused_in_a_line(content: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(DistributedError, match=line) as error:
        read_hosts(write(tmp_path, content))
    assert "hosts.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_rank_is_started_by_a_shell_that_takes_its_words_as_they_are(tmp_path: Path) -> None:
    raw = {"envs": ["WORDS=a 'b' $(touch /nothing) \"c\""], "hosts": RING}
    hosts = read_hosts(write(tmp_path, raw))
    content = hosts.file_content(5000)
    *_, script = command_of(hosts, 1, 5000, content)
    shown = script.rsplit(" -m mlx_qwen3", 1)[0].rsplit(" ", 1)[0]  # without the Python to run
    code = 'printf "%s|%s|" "$WORDS" "$MLX_RANK"; cat "$MLX_HOSTFILE"'
    result = subprocess.run(["/bin/sh", "-c", f"{shown} /bin/sh -c '{code}'"], capture_output=True, text=True)
    assert result.stdout == "a 'b' $(touch /nothing) \"c\"|1|" + content
    assert command_of(read_hosts(write(tmp_path, RING[::-1])), 1, 5000, content)[0] == "ssh"


def test_rank_0_is_where_the_launcher_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLX_HOSTFILE", "MLX_JACCL_COORDINATOR", "NCCL_HOST_IP"):
        monkeypatch.delenv(name, raising=False)
    assert rank_0_addresses()[0] == "127.0.0.1"
    monkeypatch.setenv("MLX_HOSTFILE", str(write(tmp_path, [["10.0.0.1:5", "[fe80::1]:6"], ["10.0.0.2:7"]])))
    assert rank_0_addresses() == ["10.0.0.1", "fe80::1"]
    monkeypatch.setenv("MLX_JACCL_COORDINATOR", "10.9.9.9:1")
    assert rank_0_addresses()[-1] == "10.9.9.9"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("", ""),
        ("[ring] Receiving from socket 5 failed with errno 104\n", ""),
        ("error: no disk\n[ring] connection lost\n", "no disk"),
        (
            "[ring]error: rank 1 (x) ended: error: no disk\n Receiving from",
            "rank 1 (x) ended: error: no disk",
        ),
    ],
)
def test_the_last_words_of_a_rank(said: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "stderr").write_text(said)
    with (tmp_path / "stderr").open("rb") as file:
        assert last_line(file.fileno()) == line
