"""What registering a hook returns, for tensors and for modules."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from chainrule.graph import structure

_ids = itertools.count()


class HookDict(dict[int, Any]):
    """Hooks in the order in which they are called. (A plain dict cannot be referred to weakly.)"""


class RemovableHandle:
    """What registering a hook returns; `handle.remove()` takes the hook off again.

    Also a context manager: the hook is there inside the `with` block.
    """

    def __init__(self, hooks: HookDict):
        self.id = next(_ids)
        self._hooks = weakref.ref(hooks)

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self.id, None)
            structure.epoch += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
