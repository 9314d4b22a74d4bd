"""Node features that hold mostly zeros, multiplied as the sparse matrices that they are."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor

from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.csr import as_csr
from graphsparse.ops.remember import remember, remember_repeated

#: Share of entries that are not zero up to which dense features are brought into sparse form
#: (`benchmarks/sparse_features.py` prints the table that it was read from).
SPARSE_BELOW = 0.1


_VIEWS = ("T", "mT", "H", "mH", "data", "real", "imag")  # the attributes of a tensor that show its numbers


class LinearInput(Tensor):
    """A matrix known by what a linear layer makes of it; anything else sees it as the dense tensor it stands for.

    Any module whose first operation is a linear layer takes it in place of a dense matrix.

    Args:
        like: A tensor of the dtype and on the device of the matrix.
        shape: Shape of the matrix, ``[N, F]``.
        multiply: Gives the product with the transposed weight ``[F, H]``.
        dense: Gives the dense matrix.
    """

    _multiply: Callable[[Tensor], Tensor]
    _dense: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls, like: Tensor, shape: tuple[int, int], multiply: Callable[[Tensor], Tensor], dense: Callable[[], Tensor]
    ) -> "LinearInput":
        """Wrap the two functions; no dense memory is taken."""
        make = torch.Tensor._make_wrapper_subclass
        self: LinearInput = make(cls, shape, dtype=like.dtype, device=like.device)
        self._multiply, self._dense = multiply, dense
        return self

    def to_dense(self, *_: Any, **__: Any) -> Tensor:
        """Return the matrix as a dense tensor."""
        return self._dense()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Multiply for a linear layer; make anything else see the dense tensor."""
        kwargs = kwargs or {}
        if func is F.linear:
            out = _linear(*args, **kwargs)
            if out is not None:
                return out
        if _is_without_numbers(func):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        args, kwargs = tree_map_only(cls, to_dense, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse what gets past `__torch_function__`: there are no numbers here."""
        raise NotImplementedError(f"{func} is not defined for a matrix known by its products; use to_dense()")


def _is_without_numbers(func: Callable[..., Any]) -> bool:
    if getattr(func, "__name__", "") == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") not in _VIEWS
    return func in (Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.__len__)


# The names are those of torch, by which they may come.
def _linear(input: Any, weight: Any, bias: Tensor | None = None) -> Tensor | None:
    if not isinstance(input, LinearInput) or isinstance(weight, LinearInput):
        return None
    if type(weight) not in (Tensor, torch.nn.Parameter):
        return None  # it knows itself what it is multiplied by
    types = [weight.dtype, input.dtype]
    if torch.is_autocast_enabled(input.device.type):  # it leaves doubles as they are
        cast = torch.get_autocast_dtype(input.device.type)
        types = [dtype if dtype == torch.float64 else cast for dtype in types]
    if types[0] != types[1]:
        return None  # torch says why not
    out: Tensor = input._multiply(weight.to(types[0]).t())
    return out if bias is None else out + bias.to(out.dtype)


def constant_features(x: Any, reuse: bool) -> Tensor:
    """Return the features in the form in which a layer should multiply them.

    Args:
        x: Dense ``[N, F]``, or sparse as a torch or torch-sparse matrix, which is made dense if it needs gradients.
        reuse: Whether a dense tensor that comes for the second time, unchanged and without gradients, may be brought
            into sparse form, if that is worth it.
    """
    if isinstance(x, LinearInput):
        return x
    if is_sparse(x) and (x.requires_grad if isinstance(x, Tensor) else x.requires_grad()):
        made_dense: Tensor = to_dense(x)
        return made_dense
    if is_torch_sparse_tensor(x):
        return linear_input(remember([x], "features", lambda: Adjacency.from_torch_csr(as_csr(x))))
    if is_sparse(x):
        held = [part for part in x.coo() if part is not None]
        return linear_input(remember(held, ("features", tuple(x.sizes())), lambda: Adjacency.from_sparse_tensor(x)))
    dense: Tensor = x
    if not reuse or dense.requires_grad or dense.dim() != 2 or dense.dtype not in (torch.float32, torch.float64):
        return dense
    found = remember_repeated([dense], "features", lambda: sparse_if_worth_it(dense))
    return dense if found is None else linear_input(found, dense)


def linear_input(matrix: Adjacency, dense: Tensor | None = None) -> LinearInput:
    """Return a sparse matrix, whose dense form may be known already, as the input of a linear layer.

    Example:
        >>> x = linear_input(Adjacency.from_torch_csr(torch.eye(3).to_sparse_csr()))
        >>> x.shape, F.linear(x, torch.ones(2, 3)).tolist()[0]
        (torch.Size([3, 3]), [1.0, 1.0])
    """
    like = torch.empty(0, device=matrix.device) if matrix.value is None else matrix.value
    return LinearInput(
        like,
        (matrix.num_dst, matrix.num_src),
        lambda weight: spmm(matrix, weight),
        lambda: matrix.to_torch_csr().to_dense() if dense is None else dense,
    )


def sparse_if_worth_it(x: Tensor) -> Adjacency | None:
    """Return dense features as a sparse matrix, or ``None`` where too many are not zero.

    Example:
        >>> sparse_if_worth_it(torch.ones(3, 4)), sparse_if_worth_it(torch.eye(30)).num_edges
        (None, 30)
    """
    if x.numel() == 0 or int(x.count_nonzero()) > SPARSE_BELOW * x.numel():
        return None
    return Adjacency.from_torch_csr(as_csr(x))


def to_dense(x: Any) -> Any:
    """Return features of any form as a dense tensor, those of a pair each; ``None`` as it is."""
    if isinstance(x, (tuple, list)):
        return tuple(to_dense(part) for part in x)
    if x is None or (isinstance(x, Tensor) and x.layout == torch.strided and not isinstance(x, LinearInput)):
        return x
    return x.to_dense()
