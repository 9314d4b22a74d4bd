"""Training: tasks, one loop, masks, and projections that attach to any optimiser."""

from graphsparse.training.drop_and_grow import DropAndGrow
from graphsparse.training.fit import fit
from graphsparse.training.graph_task import GraphTask
from graphsparse.training.l0_projection import L0Projection
from graphsparse.training.link_task import LinkTask, link_training
from graphsparse.training.masks import Masks
from graphsparse.training.nm_projection import NMProjection
from graphsparse.training.node_task import NodeTask, predict
from graphsparse.training.prune_and_mend import PruneAndMend
from graphsparse.training.seeding import build_model, seeded
from graphsparse.training.step_projection import FixedMask, HeldMask, StepProjection
from graphsparse.training.target import distillation_loss
from graphsparse.training.task import Evaluation, FitResult, Task
from graphsparse.training.training import Training, clipped_adam

__all__ = [
    "DropAndGrow",
    "Evaluation",
    "FitResult",
    "FixedMask",
    "GraphTask",
    "HeldMask",
    "L0Projection",
    "LinkTask",
    "Masks",
    "NMProjection",
    "NodeTask",
    "PruneAndMend",
    "StepProjection",
    "Task",
    "Training",
    "build_model",
    "clipped_adam",
    "distillation_loss",
    "fit",
    "link_training",
    "predict",
    "seeded",
]
