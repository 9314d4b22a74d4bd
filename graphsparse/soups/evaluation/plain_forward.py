"""Logits of a state dict by passes over the whole graph, and the running statistics that belong to it."""

import copy
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Data

from graphsparse.soups.states import State, tie, tied_names
from graphsparse.training.check import check_output
from graphsparse.utils.call_model import Call, call_model
from graphsparse.utils.running_norms import running_norms, take_means


class _Caller(nn.Module):
    """Calls a model on a graph, for :func:`torch.func.functional_call`."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, data: Data) -> Any:
        return self.call(self.model, data)


def call_with_state(model: nn.Module, state: State, data: Data, call: Call = call_model) -> Tensor:
    """Call a model on a graph with the weights of a state dict, which itself stays where it is."""
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    tied = tie({name: value.to(device) for name, value in state.items()}, tied_names(model))
    logits: Tensor = functional_call(_Caller(model, call), {f"model.{name}": tied[name] for name in tied}, (data,))
    return logits


class PlainForward:
    """One pass over the whole graph.

    Args:
        model: Model in evaluation mode.
        data: The graph.
        nodes: The nodes whose logits are wanted.
        call: How to call the model on a graph.
    """

    def __init__(self, model: nn.Module, data: Data, nodes: Tensor, call: Call) -> None:
        self.model, self.data, self.nodes, self.call = model, data, nodes, call
        self._writes: bool | None = None  # whether the model writes into the graph; not known before the first pass

    @torch.no_grad()
    def logits(self, state: State) -> Tensor:
        """Return the logits of the judged nodes ``[n, C]``."""
        data = copy.copy(self.data)
        copied = {name: data[name].clone() for name in data.node_attrs()} if self._writes is not False else {}
        data.update(copied)
        before = [value._version for value in copied.values()]
        logits = call_with_state(self.model, state, data, self.call)
        if self._writes is None:
            self._writes = before != [value._version for value in copied.values()]
        check_output(logits, self.data, "data", ())
        return logits[self.nodes]


@torch.no_grad()
def estimate_statistics(model: nn.Module, state: State, data: Data, call: Call = call_model) -> dict[str, Tensor]:
    """Return a state dict with running statistics estimated anew, by one pass over a graph with dropout off.

    A normalisation that is called several times takes the plain mean. The model is in evaluation mode, before and
    afterwards.
    """
    state = dict(state)
    with ExitStack() as stack:
        for name, module in running_norms(model).items():
            prefix = f"{name}." if name else ""
            fresh = {}
            for key, value in module.named_buffers(recurse=False):
                fresh[key] = torch.ones_like(value) if key == "running_var" else torch.zeros_like(value)
                state[prefix + key] = fresh[key]  # written to by the calls below, so none that others hold
            take_means(module, fresh, stack)
        call_with_state(model, state, data, call)
    return state
