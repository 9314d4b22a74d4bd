"""Whether something follows torch's operations one by one, so that no kernel of ours may stand between them."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_traced() -> bool:
    """Say whether a compiler or a transform of functions runs the code, for which values and shapes are not known."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    return torch._C._functorch.peek_interpreter_stack() is not None


def is_transformed() -> bool:
    """Say whether code is traced, or derived in forward mode, which knows the derivatives of torch's operations alone.

    Forward mode holds for whole levels: who asked each tensor would miss the ones that are computed from others.
    """
    return is_traced() or forward_ad._current_level >= 0


def is_batched(*tensors: Tensor | None) -> bool:
    """Say whether a tensor stands for many, as gradients do with ``is_grads_batched`` or ``vectorize``."""
    return any(t is not None and torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors)
