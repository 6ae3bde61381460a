import os
import signal

import pytest

from interface.screen import Screen
from pipeline.interrupts import noting_interrupts, raise_if_interrupted


class Interrupted:
    """Python only prints what is raised in a destructor."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # a signal's handler runs between two instructions
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("unit", ["images", "batches"])
def test_an_interrupt_that_a_destructor_swallowed_ends_the_work_at_its_next_step(unit):
    steps = []

    def work():
        with noting_interrupts(), Screen(quiet=True).track("Working", 10, unit) as advance:
            for step in range(10):
                Interrupted()
                steps.append(step)
                advance(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [0]
    raise_if_interrupted()  # it is forgotten with the block
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_plain_interrupt_is_raised_at_once():
    def work():
        with noting_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        work()
    raise_if_interrupted()
