"""Ridge regressions from sums over parts: what is held is no larger than a Gram matrix."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class LeastSquares:
    r"""Sums of a weighted least squares problem, and its solution under a ridge.

    .. math::
        \min_W \; \sum_i w_i \lVert Z_i W - Y_i \rVert^2 + \rho \lVert W \rVert^2, \qquad
        W = (G + \rho I)^{-1} B, \quad G = \sum_i w_i Z_i^\top Z_i, \quad B = \sum_i w_i Z_i^\top Y_i

    As long as there are fewer rows than columns the rows are held in place of :math:`G`, and the solution is
    :math:`Z^\top (Z Z^\top + \rho I)^{-1} Y`, which is the same and costs less. All is float64.

    Example:
        >>> found = LeastSquares()
        >>> found.add(torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0], [4.0]]))
        >>> round(float(found.solve(0.0)), 6)
        3.0

    Attributes:
        gram: :math:`G`, float64 ``[p, p]``, ``None`` as long as rows are held.
        cross: :math:`B`, float64 ``[p, q]``.
        rows: Number of rows.
        ridge: The one that the last solution has.
        condition: A lower bound of the condition number of the last system.
    """

    gram: Tensor | None = None
    cross: Tensor | None = None
    rows: int = 0
    ridge: float = 0.0
    condition: float = 1.0
    _held: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, inputs: Tensor, targets: Tensor, weight: float = 1.0) -> None:
        """Add rows.

        Args:
            inputs: :math:`Z_i`, ``[n, p]``.
            targets: :math:`Y_i`, ``[n, q]``.
            weight: The weight :math:`w_i` of each of these rows.
        """
        root = weight**0.5
        self._held.append((inputs.double() * root, targets.double() * root))
        self.rows += len(inputs)
        if self.gram is not None or self.rows >= inputs.size(1):
            self.sums()

    def add_sums(self, gram: Tensor, cross: Tensor, rows: int) -> None:
        r"""Add rows of which only the products are known.

        Args:
            gram: :math:`w_i Z_i^\top Z_i`, ``[p, p]``.
            cross: :math:`w_i Z_i^\top Y_i`, ``[p, q]``.
            rows: Their number.
        """
        if self.gram is None or self.cross is None:
            self.gram, self.cross = torch.zeros_like(gram), torch.zeros_like(cross)
        self.gram += gram
        self.cross += cross
        self.rows += rows
        self.sums()

    def sums(self) -> tuple[Tensor, Tensor]:
        """Return :math:`G` ``[p, p]`` and :math:`B` ``[p, q]``, which are all that another machine needs to know."""
        for z, y in self._held:
            if self.gram is None or self.cross is None:
                self.gram, self.cross = z.t() @ z, z.t() @ y
            else:
                self.gram.addmm_(z.t(), z)
                self.cross.addmm_(z.t(), y)
        self._held.clear()
        if self.gram is None or self.cross is None:
            raise ValueError("there are no rows to sum up")
        return self.gram, self.cross

    def scale(self) -> float:
        """Return the mean of the diagonal of :math:`G`."""
        if self.gram is not None:
            return float(self.gram.diagonal().mean())
        return sum(float(z.square().sum()) for z, _ in self._held) / self._held[0][0].size(1)

    def solve(self, ridge: float, prior: Tensor | None = None) -> Tensor:
        r"""Return the solution ``[p, q]``.

        Args:
            ridge: :math:`\rho`; where the system cannot be solved it is raised tenfold, at most three times.
            prior: Where the ridge draws the solution to, 0 by default, ``[p, q]``.

        Raises:
            ValueError: If the system cannot be solved.
        """
        if self.gram is None:
            z, cross = (torch.cat(parts) for parts in zip(*self._held, strict=True))
            gram, cross = z @ z.t(), cross if prior is None else cross - z @ prior
        else:
            gram, cross = self.sums()
            cross = cross if prior is None else cross - gram @ prior
        for _ in range(4):
            factor, failed = torch.linalg.cholesky_ex(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
            if not failed and bool(factor.diagonal().isfinite().all()):
                self.condition = float(factor.diagonal().max() / factor.diagonal().min()) ** 2
                self.ridge = ridge
                found = torch.cholesky_solve(cross, factor)
                found = found if self.gram is not None else z.t() @ found
                return found if prior is None else prior + found
            ridge = max(10 * ridge, 1e-12 * float(gram.diagonal().max()))
        raise ValueError(
            f"a system of {self.rows} rows and {gram.size(1)} columns cannot be solved: it holds values that are not "
            "numbers, or too large ones"
        )

    def solve_standardised(self, ridge: float, has_constant: bool = True) -> Tensor:
        r"""Return the solution with inputs brought to deviation 1 first, and to mean 0 where the last is the constant.

        Columns whose variance is below :math:`10^{-10}` of the largest get the weight 0.

        Args:
            ridge: Share of the variance of each column that is added to it.
            has_constant: Whether the last column of all inputs is 1; its weight is free.
        """
        gram, cross = self.sums()
        if has_constant:
            gram, cross = self.centred()
        scale = torch.where(gram.diagonal() > 1e-10 * gram.diagonal().max(), gram.diagonal().clamp(min=0).rsqrt(), 0)
        problem = LeastSquares(scale.unsqueeze(1) * gram * scale, scale.unsqueeze(1) * cross)
        found = scale.unsqueeze(1) * problem.solve(ridge)
        self.ridge, self.condition = problem.ridge, problem.condition
        if not has_constant:
            return found
        row, total = self.sums()[0][-1, :-1], self.sums()[0][-1, -1]
        return torch.cat([found, ((self.sums()[1][-1] - row @ found) / total).unsqueeze(0)])

    def centred(self) -> tuple[Tensor, Tensor]:
        """Return both sums with the means of inputs and targets taken off, where the last column of all inputs is 1."""
        gram, cross = self.sums()
        row, total = gram[-1, :-1], gram[-1, -1]
        return gram[:-1, :-1] - torch.outer(row, row) / total, cross[:-1] - torch.outer(row, cross[-1]) / total

    def moments(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return weighted mean and variance of the outputs of a map, where the last column of all inputs is 1."""
        if self.gram is None:
            z = torch.cat([z for z, _ in self._held])
            total, mean, square = z[:, -1].square().sum(), z[:, -1] @ (z @ matrix), (z @ matrix).square().sum(0)
        else:
            total, mean = self.gram[-1, -1], self.gram[-1] @ matrix
            square = (matrix * (self.gram @ matrix)).sum(0)
        return mean / total, (square / total - (mean / total).square()).clamp(min=0)

    def report(self) -> dict[str, Any]:
        """Return what is known of the system after :meth:`solve`: rows, ridge, a lower bound of its condition."""
        return {"rows": self.rows, "ridge": self.ridge, "condition": self.condition}
