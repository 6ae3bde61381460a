"""The benchmarks can be started: they import what there is, and say what they ran on."""

import importlib

from tests.benchmarks import machine
from tests.conftest import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "tests" / "benchmarks").rglob("*.py")
    if path.name != "__init__.py"
)


def test_benchmarks_import_what_there_is():
    for module in MODULES:
        importlib.import_module(module)


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
