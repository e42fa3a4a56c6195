"""The command line: `chainrule train`, `evaluate`, `predict`, `models`, `datasets`, `doctor`."""

from chainrule.cli.main import app, main

__all__ = ["app", "main"]
