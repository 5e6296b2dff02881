"""The command line: ``tinycnn`` and ``python -m tinycnn``."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from .. import __version__
from .convert import convert
from .data import app as data_app
from .errors import FAILED, INTERRUPTED, CommandError, words_of
from .explain import explain
from .export import export
from .inspect import gradcheck, list_models, summary
from .lr_range import lr_range
from .options import Grouped
from .recipes import list_recipes
from .report import compare, report
from .train import Interruption, train
from .use import evaluate, predict

app = typer.Typer(
    name="tinycnn",
    help="Train convolutional networks whose every backward pass is written by hand.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train", cls=Grouped)(train)
app.command("recipes")(list_recipes)
app.command("lr-range", cls=Grouped)(lr_range)
app.command("eval")(evaluate)
app.command("predict")(predict)
app.command("report")(report)
app.command("compare")(compare)
app.command("convert")(convert)
app.command("export")(export)
app.command("models")(list_models)
app.add_typer(data_app, name="data")
app.command("summary")(summary)
app.command("gradcheck")(gradcheck)
app.command("explain")(explain)

UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
"""What typer raises for a wrong option or argument (newer versions bring click along under another name)."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tinycnn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: after the program's name; by default those of this process.
    """
    _prepare_streams()
    return _flushed(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        code = app(args=arguments, prog_name="tinycnn", standalone_mode=False) or 0
        return _say("interrupted", code) if code == INTERRUPTED else code
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", INTERRUPTED)
    except Interruption as interruption:
        return _say(str(interruption), interruption.code)
    except CommandError as error:
        return _say(f"error: {error}", error.code)
    except UsageProblem as error:
        return _usage(error)
    except OSError as error:  # files have words of their own: this is about standard output
        return _cannot_write(error)


def _prepare_streams() -> None:
    """Let no character or closed stream stop a command: ``×`` becomes ``?`` in ASCII, closed is as /dev/null."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", errors="replace"))  # noqa: SIM115
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="replace")


def _flushed(code: int) -> int:
    """Write what is left, now that there can still be words for it, and return the exit code."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        failed = _cannot_write(error)
        return code or failed
    return code


def _cannot_write(error: OSError) -> int:
    sys.stdout = None  # or Python would try again at its exit
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        return FAILED
    return _say(f"error: {words_of(error)}", FAILED)


def _usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # no command at all: its words are the help
        print(error.format_message())
        return 0
    return _say(f"error: {error.format_message()}", error.exit_code)


def _say(words: str, code: int) -> int:
    try:
        print(f"tinycnn: {words}", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None  # nobody to tell: the exit code has to do
    return code
