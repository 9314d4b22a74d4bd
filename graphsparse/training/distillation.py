"""Learning from the predictions of another model."""

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return the Kullback-Leibler divergence of the student's predictions from the teacher's, averaged over nodes.

    .. math::
        \frac{T^2}{N} \sum_v \sum_c p_{vc} \, (\log p_{vc} - \log q_{vc}), \qquad
        p = \mathrm{softmax}(Z_T / T), \quad q = \mathrm{softmax}(Z_S / T)

    The factor :math:`T^2` keeps the size of the gradient the same at every temperature. No gradient reaches the
    teacher.

    Args:
        student_logits: :math:`Z_S`, ``[N, C]``.
        teacher_logits: :math:`Z_T`, ``[N, C]``.
        temperature: :math:`T`, positive; larger values compare the small probabilities more.

    Returns:
        A scalar in nats; 0 if both predict the same.

    Raises:
        ValueError: If the shapes differ, no node is given, or the temperature is not positive.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 2.0]])
        >>> float(distillation_loss(logits, logits))
        0.0

    Source: Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531, Section 2; used by Seo et
    al., arXiv 2402.01261, Section 4, at temperature 1.
    """
    if student_logits.shape != teacher_logits.shape or student_logits.dim() != 2 or student_logits.size(0) == 0:
        raise ValueError(
            "'student_logits' and 'teacher_logits' must both be [N, C] with at least one node "
            f"(got {list(student_logits.shape)} and {list(teacher_logits.shape)})"
        )
    if not temperature > 0:
        raise ValueError(f"'temperature' must be positive (got {temperature!r})")
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
