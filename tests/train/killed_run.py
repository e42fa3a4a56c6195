"""A small run that says each step it has done, to be killed by test_kill_resume.

    python killed_run.py FOLDER EVERY_SECONDS [resume]

It has all that a run has to remember: dropout, batch norm, augmentation, shuffling, a schedule,
momentum, clipping, metrics, early stopping, threads that fetch ahead. At the end the weights, the
optimiser's state and the history go to FOLDER/final.state.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import chainrule as cr
from chainrule import data, nn, optim, train
from chainrule.data import transforms
from chainrule.serialize import save_state

EPOCHS, STEPS = 4, 4 * 10


def make_data():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 78)
    images = generator.uniform(0, 0.3, (78, 1, 8, 8)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 0.6
    whole = data.TensorDataset(images, labels)
    changes = transforms.RandomAffine(degrees=10, translate=(0.1, 0.1))
    return whole.with_transform(changes, seed=3), whole


def make_trainer(folder: Path, every_seconds: float):
    cr.random.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 4),
    )  # fmt: skip
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    callbacks = [
        train.Checkpoint(folder, monitor="val_loss", every_seconds=every_seconds),
        train.GradientClipping(norm=1.0),
        train.Schedule(schedule, interval="step"),
        train.EarlyStopping(patience=50, restore_best=True),
        train.CSVLogger(folder / "metrics.csv"),
        train.Lambda(after_step=lambda trainer: print(trainer.step, flush=True)),
    ]
    return cr.Trainer(model, optimizer, None, ["accuracy", "f1"], callbacks, progress=False)


def main() -> None:
    folder, every_seconds, resume = Path(sys.argv[1]), float(sys.argv[2]), "resume" in sys.argv
    changed, plain = make_data()
    trainer = make_trainer(folder, every_seconds)
    loader = data.DataLoader(changed, batch_size=8, shuffle=True, seed=5, num_workers=2)
    history = trainer.fit(
        loader,
        validation=data.DataLoader(plain, batch_size=39),
        epochs=EPOCHS,
        resume=resume and (folder / "last.ckpt").exists(),
    )
    timed = ("seconds", "samples_per_second")
    final = {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "random": cr.random.get_state(),
        "history": [{k: v for k, v in r.items() if k not in timed} for r in history],
    }
    save_state(final, folder / "final.state")


if __name__ == "__main__":
    main()
