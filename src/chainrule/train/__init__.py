"""Training: the Trainer, metrics, callbacks, history, pictures."""

from chainrule.train.callbacks import (
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    GradientClipping,
    Lambda,
    Schedule,
    TensorBoard,
    read_checkpoint,
)
from chainrule.train.history import History
from chainrule.train.metrics import (
    F1,
    MAE,
    METRICS,
    MSE,
    R2,
    Accuracy,
    ConfusionMatrix,
    Metric,
    Perplexity,
    Precision,
    Recall,
    TopK,
)
from chainrule.train.progress import Progress
from chainrule.train.trainer import Trainer

__all__ = [
    "F1", "MAE", "METRICS", "MSE", "R2", "Accuracy", "CSVLogger", "Callback", "Checkpoint",
    "ConfusionMatrix", "EarlyStopping", "GradientClipping", "History", "Lambda", "Metric",
    "Perplexity", "Precision", "Progress", "Recall", "Schedule", "TensorBoard", "TopK",
    "Trainer", "read_checkpoint",
]  # fmt: skip
