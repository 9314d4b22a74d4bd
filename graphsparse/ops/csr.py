"""Sparse CSR tensors of torch, without the remark that these are in beta state: it is not for who did not build one."""

import threading
import warnings
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

_LOCK = threading.Lock()


def csr_tensor(rowptr: Tensor, col: Tensor, value: Tensor, size: Sequence[int]) -> Tensor:
    """Return a CSR matrix of its parts, which are neither copied nor checked again."""
    _hush()
    return torch.sparse_csr_tensor(rowptr, col, value, torch.Size(size), check_invariants=False)


def as_csr(x: Tensor) -> Tensor:
    """Return a matrix in any layout as a CSR matrix."""
    _hush()
    return x.to_sparse_csr()


def _hush() -> None:
    if not torch.compiler.is_compiling():
        _hear_it()


@cache
def _hear_it() -> None:
    """Have torch make its remark where nobody hears it; it makes it once per process.

    Filters of warnings are those of all threads: they are changed once and for as short as possible, under a lock.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.zeros(1, 1, device="cpu").to_sparse_csr()
