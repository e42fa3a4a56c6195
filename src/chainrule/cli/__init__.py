"""The command line: `chainrule train`, `evaluate`, `predict`, `models`, `bench`, `cache`, ..."""

import sys


def main() -> None:
    """What the installed command `chainrule` calls.

    The rest is imported here, so that Ctrl-C in the meantime ends as it does later.
    """
    try:
        from chainrule.cli.entry import run

        code = run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


__all__ = ["main"]
