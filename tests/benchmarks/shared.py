"""A training step alone and on a shared machine, with waiting threads that spin or sleep.

OpenMP's threads spin at every barrier, so two programs on the same cores wait for each other.
main.py sets OMP_WAIT_POLICY=PASSIVE; run as `python -m tests.benchmarks.shared`.
"""

import os
import statistics
import subprocess
import sys
import time

POLICIES = {
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
}
STEPS, ROUNDS = 6, 3
SET = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


def measure() -> None:
    """Print the median seconds of a ResNet18 step of 8 images of 224 pixels."""
    import timm
    import torch

    network = timm.create_model("resnet18", num_classes=1, in_chans=1)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    images, targets = torch.rand(8, 1, 224, 224), torch.rand(8, 1)
    images = images.to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds[1:]))


def started(policy: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a process that measures."""
    environment = {name: value for name, value in os.environ.items() if name not in SET} | policy
    command = [sys.executable, "-m", "tests.benchmarks.shared", "measure"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def step_seconds(policy: dict[str, str], beside: str) -> float:
    """Return the seconds of a step, alone, beside a busy process, or beside another training."""
    busy = (
        [subprocess.Popen([sys.executable, "-c", "while True: pass"])] if beside == "busy" else []
    )
    processes = [started(policy) for _ in range(2 if beside == "twice" else 1)]
    found = [float(process.communicate()[0]) for process in processes]
    for process in busy:
        process.kill()
        process.wait()
    return statistics.mean(found)


def main() -> None:
    """Print a table: medians of rounds in turns."""
    kinds = {"alone": "alone", "busy": "beside one busy process", "twice": "two at once, each"}
    print(f"{'one step (s)':<26}" + "".join(f"{name:>10}" for name in POLICIES))
    for beside, words in kinds.items():
        found: dict[str, list[float]] = {name: [] for name in POLICIES}
        for _ in range(ROUNDS):
            for name, policy in POLICIES.items():
                found[name].append(step_seconds(policy, beside))
        print(
            f"{words:<26}" + "".join(f"{statistics.median(found[name]):10.2f}" for name in POLICIES)
        )


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
