"""How good a state dict is on some nodes of a graph, plain or cached, and the gradient of the loss at it."""
