"""`chainrule cache`: the compiled programs on disk."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from chainrule.cli.tables import print_table
from chainrule.compiler.native import cache
from chainrule.errors import unknown_name

ACTIONS = ("list", "clear")


def age(seconds: float) -> str:
    """A length of time in its largest unit: `3 h`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def size(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB" if nbytes >= 2**20 else f"{nbytes / 2**10:.1f} KiB"


def cache_command(
    action: Annotated[str, typer.Argument(help="list them, or clear: remove them all")] = "list",
) -> int:
    """List the compiled programs that are kept on disk, or remove them."""
    if action not in ACTIONS:
        raise unknown_name("action", action, ACTIONS)
    folder = cache.folder()
    if folder is None:
        print("nothing is kept on disk, because CHAINRULE_CACHE=0 is set")
        return 0
    if action == "clear":
        count, nbytes = cache.clear()
        print(f"removed {count} files, {size(nbytes)}, from {folder}")
        return 0
    listed = cache.entries()
    if listed:
        now = time.time()
        rows = [(x.title, size(x.size), age(now - x.used), x.path.name[:12]) for x in listed]
        print_table(("program", "size", "last used", "key"), rows)
        print()
    total = sum(x.size for x in listed)
    print(f"{len(listed)} programs, {size(total)} of at most {size(cache.limit())}, in {folder}")
    return 0
