"""The benchmarks can be started: they import what there is, and the one for GPUs runs dry."""

import importlib
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from models.registry import TARGET_LAYERS
from tests.benchmarks import explanation, machine
from tests.benchmarks.gpu.goals import NOT_MEASURED, judged, sorted_out
from tests.benchmarks.gpu.memory import fault
from tests.benchmarks.gpu.record import FAILED, NO_GPU, Record, read_lines
from tests.benchmarks.gpu.speed import busy_seconds
from tests.conftest import OFFLINE, ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "tests" / "benchmarks").rglob("*.py")
    if path.name != "__init__.py"
)


def test_benchmarks_import_what_there_is():
    for module in MODULES:
        importlib.import_module(module)


def test_the_cost_of_a_heat_map_is_measured_of_every_classifier():
    rows = explanation.networks()
    assert {row.architecture for row in rows} == set(TARGET_LAYERS)
    assert not any(row.is_detector for row in rows)


def test_the_processor_is_told_with_what_cannot_be_measured_on_it(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: A\nflags\t\t: fpu avx2 avx512f amx_bf16 sse\n")
    monkeypatch.setattr(machine, "CPUINFO", cpuinfo)
    found = machine.facts(with_gpu=False)
    assert found["processor"]["flags"] == ["avx2", "avx512f", "amx_bf16"]
    assert "avx2, avx512f, amx_bf16; torch uses" in machine.text(found)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    assert "instructions unknown" in machine.text(machine.facts(with_gpu=False))

    monkeypatch.setattr(machine, "has_fast_bf16", lambda: False)
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: False)
    first, second = machine.unmeasured()
    assert first.startswith("bf16 against fp32: this processor has no instructions")
    assert second.startswith("GPU: torch finds none")


def test_a_part_that_fails_keeps_what_it_found_and_goes_on(tmp_path):
    record = Record("speed", tmp_path / "lines.jsonl", 60)
    record.figure("ResNet18_CFT, from files", "ratio", 2.5, "x")
    with record.attempt("second"):
        raise RuntimeError("what it was")
    record.figure("ResNet18_CFT, in memory", "ratio", 1.5, "x")
    with (tmp_path / "lines.jsonl").open("a") as file:
        file.write('{"part": "speed", "kind": "fig')  # killed in the middle of a line
    lines = read_lines(tmp_path / "lines.jsonl")
    figures, failed, _, _ = sorted_out(lines)
    assert [one["what"] for one in failed] == ["speed: second"]
    assert failed[0]["why"].endswith("RuntimeError: what it was")
    states = {one["goal"]: one["state"] for one in judged(figures, on_gpu=True)}
    assert states["ResNet18_CFT, from files: at least 3 times the plain loop"] == "not met"
    assert states["ResNet18_CFT, in memory: at least 1.3 times the plain loop"] == "met"
    assert states["torchrun finishes a run"] == NOT_MEASURED
    assert {line["kind"] for line in lines} == {"figure", FAILED}


def test_a_gpu_is_busy_while_any_kernel_runs():
    def event(begin, end, name="gemm", kind=DeviceType.CUDA):
        return SimpleNamespace(
            start_ns=lambda: begin, duration_ns=lambda: end - begin, name=lambda: name,
            device_type=lambda: kind,
        )  # fmt: skip

    second = 10**9
    events = [
        event(0, second), event(second // 2, 2 * second), event(5 * second, 6 * second),
        event(second // 4, second // 2), event(7 * second, 9 * second, "Memcpy HtoD"),
        event(0, 9 * second, kind=DeviceType.CPU),
    ]  # fmt: skip
    results = SimpleNamespace(events=lambda: events)
    found = busy_seconds(SimpleNamespace(profiler=SimpleNamespace(kineto_results=results)))
    assert found == 3
    # What torch's profiler gives has these names.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        torch.ones(8).sum()
    assert busy_seconds(profiler) == 0
    first = profiler.profiler.kineto_results.events()[0]
    assert first.duration_ns() >= 0
    assert first.start_ns() > 0


@pytest.mark.parametrize(
    ("status", "told", "wrong"),
    [
        (1, "main.py: there is not enough memory for two images at a time; give less", ""),
        (1, "Traceback (most recent call last):\ntorch.OutOfMemoryError", "ended in a traceback"),
        (0, "", "status 0, not 1"),
        (1, "main.py: shapes do not fit", "does not say 'not enough memory'"),
        (1, "main.py: not enough memory\nmain.py: not enough memory", "2 lines instead of one"),
    ],
)
def test_how_a_training_without_memory_should_end(status, told, wrong):
    assert fault(status, told, 1, "not enough memory") == wrong


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_benchmark_of_gpus_runs_dry(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.benchmarks.bench_gpu", "--dry", "--out", str(out)]
    # Beside other tests all takes several times as long.
    done = subprocess.run(
        [*command, "--minutes", "14"], cwd=ROOT, env=OFFLINE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    found = json.loads(out.read_text())
    assert found["failed"] == []
    figures = found["figures"]
    assert set(figures) == {"data", "models", "speed", "processes", "steps"}
    for part in figures.values():
        for row in part.values():
            values = [c["value"] for c in row.values() if isinstance(c["value"], float)]
            assert all(value >= 0 for value in values)
    for model in ("ResNet18_CFT", "EfficientNetB3_Optuna"):
        assert {"continued", "evaluate", "test AUC"} <= set(figures["models"][model])
    for situation in ("in memory", "from files"):
        row = figures["speed"][f"MammoCNN, {situation}"]
        assert all(row[name]["value"] > 0 for name in ("plain", "ours", "ratio"))
    assert figures["processes"]["1 process"]["finished"]["value"] == 2
    assert all(one["state"] == NOT_MEASURED for one in found["goals"])
    left_out = {one["what"] for one in found["unmeasured"] if one["why"] == NO_GPU}
    assert {"speed: GPU busy", "speed: GPU memory", "memory: memory"} <= left_out
    assert re.search(r"^not measured: speed: GPU busy: no GPU$", done.stdout, re.M)
    assert re.search(r"^  not measured: torchrun finishes a run$", done.stdout, re.M)


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_says_so_in_one_line(tmp_path):
    command = [sys.executable, "-m", "tests.benchmarks.bench_gpu", "--out", str(tmp_path / "f")]
    environment = OFFLINE | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stdout.splitlines()[-1]
    assert last == "torch finds no GPU of NVIDIA; --dry tries the script on the processor"
    assert not (tmp_path / "f").exists()
