"""The long-memory task: name the first symbol of a sequence after a hundred blanks.

    python tools/long_memory.py --seeds 5

A sequence is one of eight symbols and then blanks, all one-hot; the network reads it to the end
and names the symbol (Hochreiter and Schmidhuber, 1997, are the source of such tasks). RNN, LSTM and
GRU get the same budget and the same grid of learning rates. Initialisation is that of the layers:
uniform in +-1 / sqrt(hidden) for all weights and biases. With `--gates chrono` the biases of the
gates that keep a state (the LSTM's forget gates, the GRU's update gates) begin at log u, u uniform
from 1 to the length, and the LSTM's input gates at -log u (Tallec and Ollivier, "Can recurrent
neural networks warp time?", 2018); with a number they begin there. A run succeeds when all eight
symbols are named right and the loss is below 0.05.
"""

from __future__ import annotations

import argparse
import time

import chainrule as cr
from chainrule import nn, optim

SYMBOLS, HIDDEN = 8, 64
CELLS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


class Reader(nn.Module):
    """A recurrent layer that reads a sequence, and a dense one that names its first symbol."""

    def __init__(self, cell: str):
        super().__init__()
        self.rnn = CELLS[cell](SYMBOLS + 1, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, SYMBOLS)

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        z, _ = self.rnn(x)
        return self.head(z[:, -1])


def sequences(blanks: int) -> tuple[cr.Tensor, cr.Tensor]:
    """All eight sequences, and their first symbols."""
    first = cr.arange(SYMBOLS)
    tokens = cr.concat([first[:, None], cr.full((SYMBOLS, blanks), SYMBOLS)], axis=1)
    return nn.functional.one_hot(tokens, SYMBOLS + 1).astype(cr.float32), first


def open_gates(model: Reader, cell: str, gates: str, blanks: int) -> None:
    """Give the gates that keep a state the biases that `gates` asks for."""
    if gates == "default" or cell == "RNN":
        return
    if gates == "chrono":
        bias = cr.log(cr.random.uniform((HIDDEN,), 1.0, float(blanks)))
    else:
        bias = cr.full((HIDDEN,), float(gates))
    rnn = model.rnn
    with cr.no_grad():
        # PyTorch's order: input, forget, cell, output gates; reset, update, new.
        rnn.bias_ih_l0[HIDDEN : 2 * HIDDEN] = bias
        rnn.bias_hh_l0[HIDDEN : 2 * HIDDEN] = 0.0
        if cell == "LSTM" and gates == "chrono":
            rnn.bias_ih_l0[:HIDDEN] = -bias
            rnn.bias_hh_l0[:HIDDEN] = 0.0


def run(cell: str, lr: float, seed: int, steps: int, blanks: int, gates: str) -> tuple[bool, int]:
    """Train one network; whether it succeeded, and the steps that it took."""
    cr.random.manual_seed(seed)
    model = Reader(cell)
    open_gates(model, cell, gates, blanks)
    opt = optim.Adam(model.parameters(), lr=lr)
    x, labels = sequences(blanks)

    @cr.compile
    def step() -> tuple[cr.Tensor, cr.Tensor]:
        opt.zero_grad()
        scores = model(x)
        loss = nn.functional.cross_entropy(scores, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss, cr.all(cr.argmax(scores, axis=1) == labels)

    for number in range(1, steps + 1):
        loss, right = step()
        if float(loss) < 0.05 and bool(right):
            return True, number
    return False, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--blanks", type=int, default=100)
    parser.add_argument("--gates", default="default", help="default, chrono, or a number")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    given = parser.parse_args()
    print(f"{'cell':6}{'lr':>8}  succeeded  steps of those that did")
    for cell in CELLS:
        for lr in given.rates:
            start = time.perf_counter()
            runs = [
                run(cell, lr, seed, given.steps, given.blanks, given.gates)
                for seed in range(given.seeds)
            ]
            took = ", ".join(str(n) for success, n in runs if success) or "-"
            count = f"{sum(success for success, _ in runs)} of {given.seeds}"
            print(
                f"{cell:6}{lr:8g}  {count:9}  {took}   ({time.perf_counter() - start:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
