"""Linear layers whose weights are held in compressed rows, for inference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphsparse.nn.accelerate import accelerate, run_as_a_whole
from graphsparse.nn.features import LinearInput
from graphsparse.nn.linear import is_plain
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.blocks import blocks
from graphsparse.ops.csr import as_csr
from graphsparse.ops.pattern import Pattern

#: Rows of the input that are multiplied at a time on CPU. They are transposed for it, and should stay in the cache.
_BLOCK = 512


class CSRLinear(nn.Module):
    r"""A linear layer that holds only the entries of its weight that are not zero, and multiplies only by these.

    The product is :math:`(\mathbf{W} \mathbf{x}^T)^T`, by :func:`graphsparse.ops.spmm`, in blocks of rows of the input
    that stay in the cache while they are transposed. An entry takes 8 bytes in float32, and 4 in a dense weight, which
    saves memory from a sparsity of one half on. Milliseconds for an input of 2708 rows, one thread of an AMD EPYC
    that was also at other work, torch 2.13 (``benchmarks/untrained_inference.py`` prints the table):

    =========== ======= ========== =========================== ==== =========
    weight      density dense, MKL dense, ops.linear           here torch CSR
    =========== ======= ========== =========================== ==== =========
    448 x 448   10 %    15.4       9.4                         9.5  36.8
    448 x 448   5 %     15.9       9.4                         5.8  21.8
    448 x 448   2 %     15.4       9.5                         2.7  11.5
    448 x 448   1 %     15.4       9.3                         2.6  2.7
    1024 x 1024 10 %    86.2       40.6                        37.8 181.8
    1024 x 1024 5 %     88.4       40.2                        24.1 100.2
    1024 x 1024 2 %     90.0       44.9                        16.7 47.3
    1024 x 1024 1 %     89.4       42.4                        11.7 31.1
    =========== ======= ========== =========================== ==== =========

    Made from the layers of a model by :func:`to_csr`. It is for inference: everything it holds is a buffer, gradients
    reach the input but no weight, and it refuses to run in training mode. An entry that is zero is left out even where
    the input is infinite, which gives NaN in a dense product. An input that is known to be sparse is multiplied by the
    weight as a dense matrix, made for the call: that is the faster.

    Args:
        weight: The weight, floating point ``[H, F]``. It is copied.
        bias: The bias ``[H]``, or ``None``. It is copied.

    Raises:
        TypeError: If the weight is no dense floating point tensor.
        ValueError: If it is no matrix, or the bias does not fit it.

    Example:
        >>> layer = CSRLinear(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
        >>> layer(torch.tensor([[5.0, 3.0]])), layer.value
        (tensor([[7., 0.]]), tensor([2.]))
    """

    rowptr: Tensor
    col: Tensor
    value: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.layout != torch.strided:
            kind = f"{weight.dtype}, {weight.layout}" if isinstance(weight, Tensor) else type(weight).__name__
            raise TypeError(f"'weight' must be a dense floating point tensor (got {kind})")
        if weight.dim() != 2:
            raise ValueError(f"'weight' must be a matrix [outputs, inputs] (got shape {list(weight.shape)})")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"'bias' must have one entry per output, [{len(weight)}] (got {list(bias.shape)})")
        self.out_features, self.in_features = weight.shape
        matrix = Adjacency.from_torch_csr(as_csr(weight.detach()))
        assert matrix.value is not None
        self.register_buffer("rowptr", matrix.rowptr)
        self.register_buffer("col", matrix.col)
        self.register_buffer("value", matrix.value)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.training = False

    def _matrix(self) -> Adjacency:
        return Adjacency(Pattern(self.rowptr, self.col, self.in_features), self.value)

    @property
    def weight(self) -> Tensor:
        """The weight as a dense tensor, made anew at every call, for code that looks at the weight of a layer."""
        return self._matrix().to_torch_csr().to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: Input ``[*, F]``.

        Raises:
            RuntimeError: If the layer is in training mode.
            ValueError: If the input has another width.
        """
        if self.training:
            raise RuntimeError(
                "CSRLinear is for inference: its weight cannot be trained. Call eval(), or train the model that it was "
                "made from"
            )
        if x.dim() == 0 or x.size(-1) != self.in_features:
            raise ValueError(f"'x' must have {self.in_features} columns (got shape {list(x.shape)})")
        if isinstance(x, LinearInput) or x.layout != torch.strided:
            out = F.linear(x, self.weight)
        else:
            out = self._multiply(x if x.dim() == 2 else x.reshape(-1, self.in_features))
        if self.bias is not None:
            out = out.add_(self.bias)
        return out if x.dim() == 2 else out.view(*x.shape[:-1], self.out_features)

    def _multiply(self, x: Tensor) -> Tensor:
        matrix = self._matrix()
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
            return spmm(matrix, x.t()).t().contiguous()
        out = x.new_empty(x.size(0), self.out_features)
        for rows in blocks(x.size(0), _BLOCK):
            out[rows] = spmm(matrix, x[rows].t()).t()
        return out

    def extra_repr(self) -> str:
        """Say the sizes, and how many entries are left."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, nonzero={self.value.numel()}"


def to_csr(model: nn.Module) -> nn.Module:
    """Return a model for inference that computes the same, and multiplies only by the weights that are not zero.

    It is :func:`~graphsparse.nn.accelerate` with every linear layer as a :class:`CSRLinear`. It takes a fraction of
    the memory of dense weights, and pays in time where layers are wide and sparse; a narrow network with constant
    sparse features is as fast, or faster, with dense weights. ``docs/untrained.md`` says how fast both are.

    Attention vectors and whatever else is no linear layer stay dense. So do the linear layers that are more than their
    weight and bias: those of a subclass, parametrised, with hooks, or inside a scripted or compiled module.

    The model that comes in is left as it is, its mode too. The result is in evaluation mode and shares what stays dense
    with the model; sparse weights are copies of what they are now, and their keys in the state dict are others.

    Args:
        model: Any model, none of whose layers still waits for its first input to know its width.

    Warns:
        UserWarning: As :func:`~graphsparse.nn.accelerate`, of the layers that it leaves as they are.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: As :func:`~graphsparse.nn.accelerate`.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> model, data = GCN(8, 16, 2, 3).eval(), random_graph()
        >>> with torch.no_grad():
        ...     _ = model.convs[1].lin.weight.mul_(torch.rand(3, 16) > 0.9)
        >>> sparse = to_csr(model)
        >>> sparse.convs[1].lin
        CSRLinear(in_features=16, out_features=3, bias=False, nonzero=...)
        >>> torch.allclose(sparse(data.x, data.edge_index), model(data.x, data.edge_index), atol=1e-5)
        True
    """
    new = accelerate(model)
    whole = run_as_a_whole(new)
    made: dict[tuple[int, int], CSRLinear] = {}

    def sparse(layer: nn.Module) -> nn.Module:
        weight: object = layer.weight if is_plain(layer) else None
        if not isinstance(weight, nn.Parameter) or weight.dim() != 2 or not weight.is_floating_point():
            return layer
        key = (id(weight), id(layer.bias))  # layers with the same tensors become the same layer
        if key not in made:
            made[key] = CSRLinear(weight, layer.bias)  # type: ignore[arg-type]
        return made[key]

    for module in list(new.modules()):
        if not isinstance(module, torch.jit.ScriptModule):  # which is the user's, not a copy
            module.training = False
        if module not in whole:
            for name, child in module._modules.items():
                module._modules[name] = None if child is None else sparse(child)
    return sparse(new)
