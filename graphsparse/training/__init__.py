"""Training: one loop, projections that attach to any optimiser, distillation."""

from graphsparse.training.distillation import distillation_loss
from graphsparse.training.fit import fit
from graphsparse.training.fit_graphs import fit_graphs
from graphsparse.training.fixed_mask import FixedMask
from graphsparse.training.l0_projection import L0Projection
from graphsparse.training.predict import predict
from graphsparse.training.result import FitResult
from graphsparse.training.seeding import build_model, seeded

__all__ = [
    "FitResult",
    "FixedMask",
    "L0Projection",
    "build_model",
    "distillation_loss",
    "fit",
    "fit_graphs",
    "predict",
    "seeded",
]
