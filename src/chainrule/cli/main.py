"""The entry point: every mistake of a user ends in one paragraph and exit code 2."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, cast

import typer

from chainrule import __version__
from chainrule.cli import inform, work
from chainrule.errors import ChainruleError, ChainruleWarning
from chainrule.files import file_error

app = typer.Typer(
    name="chainrule",
    help="Deep learning that shows its work.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

app.command("train")(work.train)
app.command("evaluate")(work.evaluate)
app.command("predict")(work.predict)
app.command("models")(inform.models_command)
app.command("datasets")(inform.datasets)
app.command("doctor")(inform.doctor)

USER_MISTAKE, INTERRUPTED = 2, 130


def _version(value: bool) -> None:
    if value:
        typer.echo(f"chainrule {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Deep learning that shows its work."""


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    if issubclass(category, ChainruleWarning):
        print(f"warning: {message}", file=sys.stderr)


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return USER_MISTAKE


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    warnings.showwarning = _show_warning
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        cast(Any, error).show()
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except ChainruleError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader of our output, such as `head`, has gone: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _fail("there is not enough memory; use a smaller --batch-size or smaller data.")
    except OSError as error:
        return _fail(str(file_error("use", error.filename or "a file", error)))


def main() -> None:
    """What the installed command `chainrule` calls."""
    sys.exit(run())
