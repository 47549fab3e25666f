"""Training that can be interrupted: what it goes on from, as tensors that safetensors can hold.

Used by the engine's updates and by the benchmarks' reference; where the state is kept is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

State = dict[str, torch.Tensor]
ADAM = ("step", "exp_avg", "exp_avg_sq")


class Checkpoint(Protocol):
    """One training under way. Asked once before the first step, and told after every step but the last."""

    def load(self) -> State | None:
        """What was last kept; None to begin anew."""

    def keep(self, state: Callable[[], State]) -> None:
        """Keeps `state()`, or lets this step pass."""


def state_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> State:
    """The parameters by their names, and what AdamW knows of each."""
    state = {name: parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        state |= {f"{name}/{part}": optimizer.state[parameter][part] for part in ADAM}
    return state


def restore(state: State, optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Back to where `state_of` was asked. parameters: all of the optimizer's, in its order."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
    known = {place: {part: state[f"{name}/{part}"] for part in ADAM} for place, name in enumerate(parameters)}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": known})
