"""Logits of a state dict by one pass over the whole graph."""

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Data

from graphsparse.soups.states import State, tie, tied_names
from graphsparse.utils.call_model import call_model
from graphsparse.utils.layerwise_inference import layerwise_inference
from graphsparse.utils.replay import Call


class Forward(Protocol):
    """A way to the logits of some nodes."""

    def logits(self, state: State) -> Tensor:
        """Return the logits of the judged nodes ``[n, C]`` with the weights of a state dict."""
        ...


class _WithState(nn.Module):
    """Calls a model with the weights of a state dict."""

    def __init__(self, model: nn.Module, state: State) -> None:
        super().__init__()
        # Not registered: a model and its state are parts of nothing here.
        self.__dict__["_model"], self.__dict__["_state"] = model, state

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_model"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.__dict__["_model"], dict(self.__dict__["_state"]), args, kwargs)


def call_with_state(model: nn.Module, state: State, data: Data, call: Call = call_model) -> Tensor:
    """Call a model on a graph with the weights of a state dict, which itself stays where it is.

    Args:
        model: Any module.
        state: State dict.
        data: The graph.
        call: How to call a model on a graph.
    """
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    moved = {name: value.to(device) for name, value in state.items()}
    logits: Tensor = call(_WithState(model, tie(moved, tied_names(model))), data)
    return logits


class PlainForward:
    """One pass over the whole graph.

    Args:
        model: Model in evaluation mode.
        data: The graph.
        nodes: The nodes whose logits are wanted.
        call: How to call a model on a graph.
        writes: Whether the model writes into the features: it then gets a copy each time.
    """

    def __init__(self, model: nn.Module, data: Data, nodes: Tensor, call: Call, *, writes: bool = False) -> None:
        self.model, self.data, self.nodes, self.call, self.writes = model, data, nodes, call, writes

    def logits(self, state: State) -> Tensor:
        """Return the logits of the judged nodes ``[n, C]``."""
        data = copy.copy(self.data)
        for name in data.node_attrs() if self.writes else ():
            data[name] = data[name].clone()
        with torch.no_grad():
            return call_with_state(self.model, state, data, self.call)[self.nodes]


class LayerwiseForward:
    """Layer by layer, in bounded memory.

    Args:
        model: A private copy of the model; it takes the weights of the states.
        data: The graph.
        nodes: The nodes whose logits are wanted.
        call: How to call a model on a graph.
        batch_size: Most nodes in a block.
    """

    def __init__(self, model: nn.Module, data: Data, nodes: Tensor, call: Call, batch_size: int) -> None:
        self.model, self.data, self.nodes, self.call, self.batch_size = model, data, nodes, call, batch_size

    def logits(self, state: State) -> Tensor:
        """Return the logits of the judged nodes ``[n, C]``."""
        self.model.load_state_dict(state)
        logits = layerwise_inference(self.model, self.data, self.batch_size, call=self.call)
        return logits[self.nodes.cpu()].to(self.nodes.device)
