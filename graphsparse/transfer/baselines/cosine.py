"""Scores of pairs by their features alone."""

import torch.nn.functional as F
from torch import Tensor

from graphsparse.transfer.data.queries import check_queries
from graphsparse.transfer.models.decoders import DotDecoder, score_in_chunks


class FeatureCosine:
    r"""Scores pairs by the angle between their features, :math:`s_{uv} = \langle x_u, x_v \rangle / (|x_u| |x_v|)`.

    A node whose features are all 0 has a score of 0 with every other. On features that say much about links, as words
    of papers do, few methods beat it.

    Args:
        x: Features ``[N, F]``.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> FeatureCosine(x).score(torch.tensor([[0, 0], [1, 2]]))
        tensor([1., 0.])
    """

    def __init__(self, x: Tensor) -> None:
        self.x = F.normalize(x)

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]``."""
        return score_in_chunks(DotDecoder(), self.x, check_queries(pairs, self.x.size(0)))
