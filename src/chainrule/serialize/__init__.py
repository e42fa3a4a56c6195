"""Files: weights (`save`, `load`) and the states of runs (`save_state`, `load_state`).

Both are safetensors files, written in one atomic step and guarded by a checksum; nothing is ever
unpickled.
"""

from chainrule.serialize.state import load_state, save_state
from chainrule.serialize.weights import load, save

__all__ = ["load", "load_state", "save", "save_state"]
