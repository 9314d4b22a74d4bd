"""What a student is told by its teacher: vectors of nodes, and scores of pairs."""

import torch.nn.functional as F
from torch import Tensor


def embedding_loss(student: Tensor, teacher: Tensor, scale: Tensor | None = None) -> Tensor:
    r"""Return the squared error of vectors, relative to the size of the teacher's.

    .. math::
        L = \frac{\mathrm{mean}\,(f - h)^2}{\mathrm{mean}\,h^2}

    with means over nodes and entries, so that neither the scale of the vectors nor their width matters. A student that
    gives zeros has a loss of 1. No gradient reaches the teacher.

    Args:
        student: Vectors ``[n, d]``.
        teacher: Vectors ``[n, d]``.
        scale: What to divide by, for batches of a larger set; the mean square of ``teacher`` when ``None``.

    Returns:
        A scalar.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> h = torch.randn(5, 3)
        >>> torch.allclose(embedding_loss(torch.zeros(5, 3), h), torch.tensor(1.0))
        True
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"'student' must have the shape of 'teacher', {list(teacher.shape)} (got {list(student.shape)})"
        )
    teacher = teacher.detach()
    return (student - teacher).square().mean() / (teacher.square().mean() if scale is None else scale)


def logit_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return the cross-entropy of a student's probabilities of links, with those of its teacher as labels.

    .. math::
        L = \mathrm{mean}\; \mathrm{BCE}\!\left(\sigma(s / \tau), \sigma(t / \tau)\right)

    No gradient reaches the teacher.

    Args:
        student: Logits ``[P]``.
        teacher: Logits ``[P]``.
        temperature: :math:`\tau`, by which both are divided.

    Returns:
        A scalar; least, though not 0, where both are equal.

    Example:
        >>> import torch
        >>> logit_loss(torch.zeros(4), torch.zeros(4))
        tensor(0.6931)
    """
    return F.binary_cross_entropy_with_logits(student / temperature, (teacher.detach() / temperature).sigmoid())
