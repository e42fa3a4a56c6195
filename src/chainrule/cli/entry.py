"""A command line, run: every mistake of a user ends in one paragraph and exit code 2."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from chainrule import __version__
from chainrule.cli import inform, stored, work
from chainrule.cli.bench import bench
from chainrule.errors import ChainruleError, ChainruleWarning, unknown_name
from chainrule.files import file_error

app = typer.Typer(
    name="chainrule",
    help="Deep learning that shows its work.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


app.command("train")(work.train)
app.command("evaluate")(work.evaluate)
# A row may begin with a minus sign, as in -1.5,2.
app.command("predict", context_settings={"ignore_unknown_options": True})(work.predict)
app.command("bench")(bench)
app.command("models")(inform.models_command)
app.command("datasets")(inform.datasets)
app.command("doctor")(inform.doctor)
app.command("cache")(stored.cache_command)

# Typer brings a Click of its own in some versions and uses the installed one in others; what is
# raised for a wrong command line is an ancestor of Typer's BadParameter in both.
_ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def _version(value: bool) -> None:
    if value:
        print(f"chainrule {__version__}")
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


def _fail(text: str, code: int = MISTAKE) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return INTERRUPTED


def _wrong_command_line(error: Any) -> int:
    """Click's own message in our form; with no arguments at all it is the help text."""
    text = error.format_message()
    if not text or "\n" in text.strip():
        print(text, file=sys.stderr)
        return error.exit_code
    if wrong := re.match("No such command '([^']*)'", text):
        names = [command.name or "" for command in app.registered_commands]
        return _fail(str(unknown_name("command", wrong[1], names)))
    command = getattr(getattr(error, "ctx", None), "command_path", "chainrule")
    return _fail(f"{text.rstrip('.')}. See: {command} --help", error.exit_code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding cannot show is shown as \\u escapes.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("default", ChainruleWarning)
        warnings.showwarning = _show_warning
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        given = None if arguments is None else list(arguments)
        code = app(args=given, prog_name="chainrule", standalone_mode=False)
        sys.stdout.flush()
        return _interrupted() if code == INTERRUPTED else code or 0
    except _ClickException as error:
        return _wrong_command_line(error)
    except (typer.Abort, KeyboardInterrupt):  # Typer gives one of three, by its version
        return _interrupted()
    except BrokenPipeError:
        # The reader of our output, such as `head`, has gone: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ChainruleError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("there is not enough memory; use a smaller --batch-size or smaller data.")
    except OSError as error:
        return _fail(str(file_error("use", error.filename or "a file", error)))
    except Exception as error:
        if "CHAINRULE_TRACEBACK" in os.environ:
            traceback.print_exc()
        return _fail(
            f"{type(error).__name__}: {error}. This is a fault in chainrule and not in what you "
            "asked for; with CHAINRULE_TRACEBACK=1 in the environment it shows where.",
            FAILED,
        )
