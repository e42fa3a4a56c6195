"""A module as a function of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chainrule.errors import unknown_name
from chainrule.nn.module import Module


def functional_call(
    module: Module, parameters_and_buffers: Mapping[str, Any], args: Any = (), kwargs: Any = None
) -> Any:
    """`module(*args, **kwargs)` with other values for some parameters and buffers, by path.

    So that derivatives with respect to parameters are those of a function:

    ```python no-run (a fragment)
    params = {name: p.detach() for name, p in model.named_parameters()}
    cr.grad(lambda params: loss(functional_call(model, params, x), y))(params)
    ```

    The module itself keeps its parameters; a buffer that is given and that `forward` assigns to
    changes there, where it was given.

    Arguments:
        module: the module.
        parameters_and_buffers: tensors by path. A parameter that stands in several places is
            replaced in all of them by any of its paths.
        args: the inputs: a tuple, or one that is none.
        kwargs: keyword inputs.
    """
    own = {
        f"{path}.{name}" if path else name: (room, name)
        for path, part in module.named_modules(remove_duplicate=False)
        for room in (part._parameters, part._buffers)
        for name in room
    }
    before = []
    for key, value in parameters_and_buffers.items():
        if key not in own:
            raise unknown_name("parameter or buffer", key, own)
        room, name = own[key]
        held = room[name]
        places = [
            place for place in own.values() if held is not None and place[0][place[1]] is held
        ]
        before.append((places, held, value))
    try:
        for places, _, value in before:
            for room, name in places:
                room[name] = value
        inputs = args if isinstance(args, tuple) else (args,)
        return module(*inputs, **(kwargs or {}))
    finally:
        for places, held, _ in before:
            for room, name in places:
                room[name] = held
