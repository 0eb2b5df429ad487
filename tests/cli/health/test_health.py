"""`mlx-qwen3 doctor`, and the check that the chat makes once on a new machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlx_qwen3 import doctor
from mlx_qwen3.backend import device
from mlx_qwen3.backend.switches import BUFFER_VARIABLE
from mlx_qwen3.cli.app import _unexpected, main
from mlx_qwen3.cli.flags import device_options
from mlx_qwen3.cli.health import once
from mlx_qwen3.doctor import Finding, Report, machine

WELL = Report({"device": "a Mac"}, (Finding("logits"),))
ILL = Report({"device": "a Mac"}, (Finding("logits", ("0.6b is off by 0.5",)), Finding("caches")))


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where results are remembered, on a stand-in for a Mac."""
    monkeypatch.setattr(once, "_file", lambda: tmp_path / "doctor.json")
    monkeypatch.setattr(device, "is_cpu", lambda: False)
    monkeypatch.setattr(machine, "key", lambda: "this Mac, this MLX")
    return tmp_path / "doctor.json"


def diagnose(monkeypatch: pytest.MonkeyPatch, report: Report) -> list[bool]:
    """Have the doctor find `report`; returns the list of calls, whether each was quick."""
    calls: list[bool] = []

    def find(quick: bool = False, *_: object) -> Report:
        calls.append(quick)
        return report

    monkeypatch.setattr(doctor, "diagnose", find)
    return calls


def test_the_chat_checks_a_new_machine_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, said = diagnose(monkeypatch, WELL), []
    once.check_once(said.append)
    once.check_once(said.append)
    assert calls == [True]
    assert len(said) == 1
    monkeypatch.setattr(machine, "key", lambda: "this Mac, another MLX")
    once.check_once(said.append)
    assert calls == [True, True]


def test_the_chat_says_what_is_wrong_and_goes_on(monkeypatch: pytest.MonkeyPatch, remembered: Path) -> None:
    diagnose(monkeypatch, ILL)
    said: list[str] = []
    once.check_once(said.append)
    assert "this machine computes wrong numbers: logits: 0.6b is off by 0.5" in said
    assert "mlx-qwen3 doctor" in said[-1]
    assert json.loads(remembered.read_text())["problems"] == ["logits: 0.6b is off by 0.5"]


def test_a_cpu_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = diagnose(monkeypatch, WELL)
    monkeypatch.setattr(device, "is_cpu", lambda: True)
    once.check_once(print)
    assert calls == []


def test_what_was_remembered_may_be_damaged(monkeypatch: pytest.MonkeyPatch, remembered: Path) -> None:
    calls = diagnose(monkeypatch, WELL)
    for content in ("", "[1]", "{" * 5000):
        remembered.write_text(content)
        once.check_once(lambda line: None)
    assert len(calls) == 3


def test_doctor_prints_a_block_and_ends_with_1_and_a_line_for_each_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    diagnose(monkeypatch, ILL)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", str(tmp_path / "all.json")])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert "device: a Mac" in out
    assert err.splitlines()[-1] == "error: logits: 0.6b is off by 0.5"
    assert json.loads((tmp_path / "all.json").read_text())["findings"][1]["name"] == "caches"
    diagnose(monkeypatch, WELL)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--quick"])
    assert ended.value.code in (0, None)


def test_flags_of_the_device_become_options_of_the_engine() -> None:
    assert device_options("auto", None) == {}
    assert device_options("float16", True, 5) == {"dtype": "float16", "wired": True, "unload_after": 300}


def test_a_missing_backend_of_mlx_is_one_line() -> None:
    missing = ImportError("libmlx.so: cannot open shared object file: No such file or directory")
    assert "-m pip install 'mlx[cpu]" in _unexpected(missing)
    assert "unexpected ImportError: x" in _unexpected(ImportError("x"))


def test_what_is_faster_is_set_before_mlx_starts(monkeypatch: pytest.MonkeyPatch, remembered: Path) -> None:
    figures = {"ms with 20": 1.0, BUFFER_VARIABLE: "20"}
    measured = Report(WELL.machine, (Finding("logits"), Finding("command buffers", figures=figures)))
    monkeypatch.setattr(once.platform, "system", lambda: "Darwin")
    monkeypatch.delenv(BUFFER_VARIABLE, raising=False)
    once.remember(measured)
    once.remember(WELL)  # a quick look of the same machine
    once.apply_settings()
    assert os.environ[BUFFER_VARIABLE] == "20"
    monkeypatch.setenv(BUFFER_VARIABLE, "44")
    once.apply_settings()
    assert os.environ[BUFFER_VARIABLE] == "44"

    monkeypatch.delenv(BUFFER_VARIABLE)
    monkeypatch.setattr(once, "installed_version", lambda package: "another")
    once.apply_settings()
    assert BUFFER_VARIABLE not in os.environ


@pytest.mark.parametrize(
    "settings", ['"no object"', f'{{"{BUFFER_VARIABLE}": 20}}', f'{{"{BUFFER_VARIABLE}": "1; rm"}}']
)
def test_a_changed_file_sets_nothing(
    settings: str, monkeypatch: pytest.MonkeyPatch, remembered: Path
) -> None:
    monkeypatch.setattr(once.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(once, "installed_version", lambda package: "1")
    monkeypatch.delenv(BUFFER_VARIABLE, raising=False)
    remembered.write_text(f'{{"mlx": "1", "settings": {settings}}}')
    once.apply_settings()
    assert BUFFER_VARIABLE not in os.environ
