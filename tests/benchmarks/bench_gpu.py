"""The tool on a GPU of NVIDIA: whether it works there, and how quickly.

    python -m tests.benchmarks.bench_gpu

takes at most `--minutes`, on data that it makes itself. Every part is a process of its own with a
share of the time, so one that fails or hangs does not stop the others:

- data: a synthetic collection, preprocessed, and copies of its images in other sizes.
- models: every model trains, is stopped or killed in the middle, continues, is evaluated.
- speed: images a second against a plain loop with autocast; memory and busy share of the GPU.
- processes: torchrun.
- memory: a batch, two images, a start that do not fit.
- steps, compiled: a step alone: eager, CUDA graph, torch.compile.

It ends with tables, the goals that are met and those that are not, and a JSON file with every
figure. The status is 1 where something failed; a goal that is not met is no failure. `--dry` runs
all of it on the processor with tiny images, to see that the script works.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.resources.machine import cores
from tests.benchmarks import machine
from tests.benchmarks.gpu.goals import judged, sorted_out, summary
from tests.benchmarks.gpu.record import (
    FAILED,
    NO_GPU,
    NO_TIME,
    UNMEASURED,
    Settings,
    last_lines,
    read_lines,
)

ROOT = Path(__file__).parents[2]
KEPT_BACK = 0.1  # of a part's time, for it to end by itself
TERMINATED = 143  # exit status
SHORTEST = 8.0  # seconds, below which no part is begun
COMPILED = "ResNet18_CFT", "MammoCNN", "EfficientNetB3_CFT", "DenseNet121_CFT"  # quick ones first
# As main.py has it: threads that spin while they wait take the cores that the plain loop needs.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


@dataclasses.dataclass(frozen=True)
class Part:
    """A process of the benchmark."""

    module: str  # of tests.benchmarks.gpu
    weight: float  # of the time; what one does not need is left to those after it
    chosen: str = ""  # what it is about, where it is one of several
    needs_gpu: bool = False
    may_end_early: bool = False  # whether a lack of time is expected

    @property
    def name(self):
        """Its name on the screen."""
        return f"{self.module} {self.chosen}".strip()


PARTS = (
    Part("data", 45), Part("models", 150), Part("speed", 150), Part("processes", 40),
    Part("memory", 40, needs_gpu=True), Part("steps", 20),
    *(Part("compiled", 25, name, needs_gpu=True, may_end_early=True) for name in COMPILED),
)  # fmt: skip


def run_part(part, settings, folder, environment):
    """Run a part until it ends or its time is over; return what it noted, and its state."""
    lines, log = folder / f"{part.name}.jsonl", folder / f"{part.name}.log"
    soft = dataclasses.replace(
        settings, seconds=settings.seconds * (1 - KEPT_BACK), chosen=part.chosen
    )
    given = json.dumps(dataclasses.asdict(soft))
    command = [sys.executable, "-m", "tests.benchmarks.gpu.record", part.module, given, str(lines)]
    started, late = time.monotonic(), False
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=file, start_new_session=True
        )
        try:
            process.wait(settings.seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            end(process)
    found = read_lines(lines)
    if late:
        kind = UNMEASURED if part.may_end_early else FAILED
        why = f"{NO_TIME}: {settings.seconds:.0f} s were over"
        found.append({"part": part.module, "kind": kind, "what": part.name, "why": why})
    elif process.returncode:
        why = f"status {process.returncode}\n{last_lines(log.read_text(errors='replace'))}"
        found.append({"part": part.module, "kind": FAILED, "what": part.name, "why": why})
    state = {"part": part.name, "seconds": round(time.monotonic() - started, 1), "late": late,
             "status": process.returncode}  # fmt: skip
    return found, state


def end(process):
    """End a process and all that it started: workers, what torchrun started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_all(options, work, on_gpu):
    """Run all parts; return what they noted, and how each ended."""
    environment = THREADS | os.environ | {"HF_HUB_OFFLINE": "1"} | hidden(options)
    deadline = time.monotonic() + 60 * options.minutes
    parts = [part for part in PARTS if on_gpu or not part.needs_gpu]
    found = [unmeasured(part, NO_GPU) for part in PARTS if part not in parts]
    states, why = [], ""
    for place, part in enumerate(parts):
        left = deadline - time.monotonic()
        why = why or (NO_TIME if left < SHORTEST else "")
        if why:
            found.append(unmeasured(part, why))
            continue
        share = part.weight / sum(one.weight for one in parts[place:])
        seconds = max(left * share, SHORTEST)
        print(f"\n{part.name}, at most {seconds:.0f} s", flush=True)
        settings = Settings(
            str(work / "data"), options.dry, seconds, options.images, options.files, options.loaders
        )
        lines, state = run_part(part, settings, work, environment)
        found += lines
        states.append(state)
        if part is PARTS[0] and (state["late"] or state["status"]):
            why = "there are no data"
    return found, states


def unmeasured(part, why):
    """Return the note that a part was not begun."""
    return {"part": part.module, "kind": UNMEASURED, "what": part.name, "why": why}


def hidden(options):
    """Return what hides a GPU from a dry run."""
    return {"CUDA_VISIBLE_DEVICES": ""} if options.dry else {}


def look(options):
    """Return what the machine is, asked in a process that then leaves the GPU alone."""
    command = [sys.executable, "-m", "tests.benchmarks.machine"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | hidden(options), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"torch cannot be asked what is here:\n{last_lines(done.stderr)}")
    return json.loads(done.stdout)


def parsed():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="on the processor, with tiny images")
    parser.add_argument("--minutes", type=float, default=8.0, help="at most, all parts together")
    parser.add_argument("--images", type=int, default=2000, help="for training, at 224 pixels")
    parser.add_argument("--files", type=int, default=480, help="for training, large ones")
    parser.add_argument("--loaders", type=int, default=min(16, cores()), help="of the plain loop")
    parser.add_argument("--out", type=Path, default=Path("bench_gpu.json"), help="of all figures")
    return parser.parse_args()


def main():
    """Run the parts, print what they found and return the exit status."""
    started, options = time.monotonic(), parsed()
    # Parts are sessions of their own: whoever ends this process means them as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    here = look(options)
    on_gpu = here["gpu"] is not None
    print(machine.text(here), flush=True)
    if not on_gpu and not options.dry:
        print("torch finds no GPU of NVIDIA; --dry tries the script on the processor")
        return 2
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        lines, parts = run_all(options, Path(name), on_gpu)
    figures, failed, left_out, said = sorted_out(lines)
    judgement = judged(figures, on_gpu)
    print(*summary(figures, failed, left_out, said, judgement), sep="\n")
    seconds = round(time.monotonic() - started, 1)
    whole = {"machine": here, "options": vars(options), "seconds": seconds, "figures": figures,
             "notes": said, "goals": judgement, "failed": failed, "unmeasured": left_out,
             "parts": parts}  # fmt: skip
    options.out.write_text(json.dumps(whole, indent=2, default=str) + "\n", encoding="utf-8")
    print(f"\n{seconds:.0f} s; all figures are in {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
