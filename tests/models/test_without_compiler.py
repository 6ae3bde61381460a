"""timm is imported without torch's compiler, and the compiler works when it is asked for."""

import subprocess
import sys

import pytest

START = """
import sys
import models.networks
def loaded(): return 'torch._dynamo' in sys.modules and 'sympy' in sys.modules
"""
ROI_ALIGN = """
from torchvision.ops.roi_align import is_compile_supported
assert is_compile_supported("cpu") in (True, False)
assert loaded()
"""
MARKED = """
from timm.models.naflexvit import NaFlexRopeIterator
from types import SimpleNamespace
marked = [one for one in vars(NaFlexRopeIterator).values() if hasattr(one, "__wrapped__")]
assert marked
try:
    marked[0](SimpleNamespace())
except Exception as error:  # it is called: what it then misses is of no concern
    assert "torch._dynamo" not in str(error), error
assert not loaded()
import torch._dynamo
try:
    marked[0](SimpleNamespace())
except Exception as error:
    assert "torch._dynamo" not in str(error), error
assert loaded()
"""
COMPILED = """
import torch
network = torch.nn.Linear(2, 1)
assert torch.compile(network, backend="eager")(torch.ones(3, 2)).shape == (3, 1)
assert loaded()
"""
STEPPED = """
import torch
network = torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(network.parameters(), fused=True)
network(torch.ones(3, 2)).sum().backward()
before = network.weight.clone()
optimizer.step()
assert not torch.equal(before, network.weight)
"""


LEARNT = """
import torch
from models.run_facts import HyperParameters
from models.training.optimisation import make_optimizer, make_schedule
from models.without_compiler import without_compiler
hparams = HyperParameters(epochs=1, batch_size=2, learning_rate=0.1, weight_decay=0.0, patience=1,
                          augment="none", seed=1, optimizer={optimizer!r})
network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
optimizer = make_optimizer(network, hparams)
schedule = make_schedule(optimizer, 2)
for _ in range(2):
    optimizer.zero_grad()
    network(torch.ones(3, 2)).sum().backward()
    before = network[0].weight.clone()
    with without_compiler():
        optimizer.step()
    schedule.step()
    assert not torch.equal(before, network[0].weight)
optimizer.load_state_dict(optimizer.state_dict())
assert not loaded()
# It works when it is needed later on, also with what was made without it.
assert torch.compile(network, backend="eager")(torch.ones(3, 2)).shape == (3, 1)
assert loaded()
optimizer.zero_grad()
network(torch.ones(3, 2)).sum().backward()
with without_compiler():
    optimizer.step()
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", START + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_scores_a_run_loads_neither_compiler_nor_matplotlib():
    run("""
import models.evaluation.stage, models.tuning.stage, models.training.stage
from models.inference import prepare_process
prepare_process(1)
assert not loaded()
assert "matplotlib" not in sys.modules
""")


@pytest.mark.slow
@pytest.mark.parametrize("use", [ROI_ALIGN, MARKED, COMPILED, STEPPED])
def test_the_compiler_is_loaded_where_it_is_used(use):
    run(f"assert not loaded()\n{use}")


@pytest.mark.slow
def test_where_the_compiler_is_loaded_already_nothing_stands_in_for_it():
    code = (
        "import torch._dynamo as compiler\n"
        "import models.networks, sys\n"
        "assert sys.modules['torch._dynamo'] is compiler\n"
        "from torchvision.ops import roi_align\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_optimiser_of_ours_learns_without_the_compiler(optimizer):
    run(LEARNT.format(optimizer=optimizer))
