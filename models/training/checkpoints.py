"""Checkpoints: all that a training needs to continue as if nothing had happened."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.records import atomic

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    averaged: nn.Module | None,
    progress: Mapping[str, Any],
) -> None:
    """Write a checkpoint whole or not at all: a full disk leaves the one before usable.

    Args:
        folder: Of the run.
        network: What is trained of it, with its running statistics.
        optimizer: Its state goes too.
        scheduler: Its state goes too.
        averaged: The moving average of the network, where there is one.
        progress: How far training has come: numbers, strings, lists and tensors.

    Raises:
        OSError: It cannot be written.
    """
    buffer = io.BytesIO()  # torch's own writer hides a full disk behind a RuntimeError
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "averaged": averaged.state_dict() if averaged is not None else {},
        "course": dict(progress),
        "random": random_state(),
    }
    torch.save(state, buffer)
    with atomic(folder / CHECKPOINT) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    averaged: nn.Module | None,
) -> dict[str, Any] | None:
    """Put a run's last checkpoint into network, optimiser, schedule and random numbers.

    Returns:
        How far training had come; None where the run has no checkpoint yet.

    Raises:
        UserError: It is damaged or of another network.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        if averaged is not None:
            averaged.load_state_dict(state["averaged"])
        course: dict[str, Any] = state["course"]
        # Last: whatever loading drew from the generators does not matter then.
        set_random_state(state["random"])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: cannot be continued from ({reason})", "start a new run without --resume"
        ) from None
    return course


def random_state() -> dict[str, Any]:
    """Return the state of torch's random numbers, which dropout draws from."""
    # Only of a GPU in use: to ask another one takes some of its memory, which may be all taken.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    graphics = [torch.cuda.get_rng_state()] if used else []
    apple = [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": graphics, "mps": apple}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on with random numbers where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])  # of the GPU in use, whichever it is
    if torch.backends.mps.is_available() and state.get("mps"):  # earlier versions did not keep it
        torch.mps.set_rng_state(state["mps"][0])
