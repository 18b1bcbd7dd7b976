"""The ``snn-deploy`` command: a lazy group, and one place where errors become exit codes.

``--help`` imports no command: names and short helps stand in the table below, and a test
compares them with the commands.
"""

from __future__ import annotations

import difflib
import errno
import itertools
import sys
from collections.abc import Mapping
from importlib import import_module

import click

from snn_deploy._version import __version__
from snn_deploy.cli.output import ReportedError
from snn_deploy.errors import EXIT_BUG, EXIT_INTERRUPT, OutputError, SnnDeployError, printable

SCHEMA = 1

COMMANDS: dict[str, str] = {
    "demo": "Train a small ticket and take it to every target.",
    "train": "Find a sparse ticket by training.",
    "export": "Lower a model for a target and write its artifacts.",
    "run": "Run a model on a target; accuracy, operations, energy.",
    "verify": "Check a target against an independent simulator.",
    "crosscheck": "Run a model in other frameworks, spike for spike.",
    "calibrate-cutoff": "Give a model an early stop, calibrated on samples.",
    "select-patches": "Keep the best patches of each sample.",
    "import": "Make a ticket of a checkpoint or an ONNX network.",
    "fit": "Say whether a model fits a device.",
    "compare": "Run a model on several targets side by side.",
    "inspect": "Show a model: layers, sparsity, quantization.",
    "targets": "List targets and devices, and what they can do.",
    "setup": "Make the environment that a target's simulator needs.",
    "doctor": "Show what is installed and what is missing.",
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"snn_deploy.cli.{cmd_name.replace('-', '_')}_command")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest near names for an unknown command."""
        name = args[0] if args else ""
        if name and name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {printable(name)!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command table without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 ok, 2 usage, 3 bad input, 4 unsupported, 5 does not fit, 6 mismatch, "
    "7 missing dependency, 8 device file, 9 external tool, 10 cannot write, 1 a bug.",
)
@click.version_option(__version__, prog_name="snn-deploy")
def cli() -> None:
    """Deploy sparse spiking networks to neuromorphic hardware, with numbers that can be checked."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    args = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(args))


def _run(args: list[str]) -> int:
    """Return the exit code; every exception ends here, told on stderr and in ``--json -``."""
    stdout = sys.stdout
    try:
        code = cli.main(args=args, prog_name="snn-deploy", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SnnDeployError as error:
        return _failed(error, args)
    except ReportedError as reported:
        click.echo(str(reported.error), err=True)
        return reported.error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        _usage(error, args)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _tell({"kind": "interrupted", "exit_code": EXIT_INTERRUPT, "message": "interrupted"}, args)
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPT
    except SystemExit as stop:
        # click leaves this way, with stdout replaced, when the reader of our output went away
        # (head, less): no error.
        if sys.stdout is not stdout:
            return 0
        return stop.code if isinstance(stop.code, int) else EXIT_BUG
    except MemoryError:
        text = "out of memory"
        _tell({"kind": "out-of-memory", "exit_code": EXIT_BUG, "message": text}, args)
        click.echo(f"error: {text}\n  hint   use fewer --samples, or a smaller model", err=True)
        return EXIT_BUG
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"cannot write: {error.strerror}"
            hint = "free some disk space, or write to another disk"
            return _failed(OutputError(reason, where=error.filename, hint=hint), args)
        _bug(error, args)
        return EXIT_BUG
    except Exception as error:
        _bug(error, args)
        return EXIT_BUG


def _json_alone(args: list[str]) -> bool:
    """Return whether ``--json -`` was given: errors must not wait for options to be parsed."""
    return "--json=-" in args or any(pair == ("--json", "-") for pair in itertools.pairwise(args))


def _tell(error: Mapping[str, object], args: list[str]) -> None:
    """Print the JSON document of a failure, where JSON was asked for."""
    if not _json_alone(args):
        return
    import json

    tool = f"snn-deploy {__version__}"
    document = {"schema": SCHEMA, "tool": tool, "ok": False, "error": dict(error)}
    click.echo(json.dumps(document, indent=2, sort_keys=True))


def _failed(error: SnnDeployError, args: list[str]) -> int:
    _tell(error.as_dict(), args)
    click.echo(str(error), err=True)
    return error.exit_code


def _usage(error: click.ClickException, args: list[str]) -> None:
    message = printable(error.format_message())
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"{error.ctx.command_path} --help"
    _tell({"kind": "usage", "exit_code": error.exit_code, "message": message, "hint": hint}, args)
    error.show()


def _bug(error: Exception, args: list[str]) -> None:
    import traceback

    traceback.print_exc()
    click.echo(
        f"\nThis is a bug in snn-deploy {__version__}, not in your model. Please report it with "
        "the lines above, the\ncommand that you typed, and the output of: snn-deploy doctor",
        err=True,
    )
    message = printable(f"{type(error).__name__}: {error}")
    _tell({"kind": "bug", "exit_code": EXIT_BUG, "message": message}, args)


if __name__ == "__main__":
    main()
