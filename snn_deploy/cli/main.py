"""The ``snn-deploy`` command: a lazy group, and one place where errors become exit codes.

``--help`` imports no command: names and short helps stand in the table below, and a test
compares them with the commands.
"""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

import click

from snn_deploy._version import __version__
from snn_deploy.errors import EXIT_BUG, EXIT_INTERRUPT, SnnDeployError, printable

COMMANDS: dict[str, str] = {
    "demo": "Train a small ticket and take it to every target.",
    "train": "Find a sparse ticket by training.",
    "export": "Lower a model for a target and write its artifacts.",
    "run": "Run a model on a target; accuracy, operations, energy.",
    "verify": "Check a target against an independent simulator.",
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
        module = import_module(f"snn_deploy.cli.{cmd_name}_command")
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
    "7 missing dependency, 8 device file, 9 external tool, 10 cannot write.",
)
@click.version_option(__version__, prog_name="snn-deploy")
def cli() -> None:
    """Deploy sparse spiking networks to neuromorphic hardware, with numbers that can be checked."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    args = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(args=args, prog_name="snn-deploy", standalone_mode=False)
    except SnnDeployError as error:
        _fail(error, args)
        code = error.exit_code
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        _usage(error, args)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPT
    except BrokenPipeError:
        # The reader of our output went away (head, less): not an error of ours.
        sys.stderr.close()
        code = 0
    except MemoryError:
        click.echo("error: out of memory\n  hint   use fewer --samples, or a smaller model", err=True)
        code = EXIT_BUG
    except Exception as error:
        _bug(error, args)
        code = EXIT_BUG
    sys.exit(code if isinstance(code, int) else 0)


def _json_target(args: list[str]) -> str | None:
    """Return where ``--json`` sends the document, or None: errors must not parse options."""
    for i, arg in enumerate(args):
        if arg == "--json" and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith("--json="):
            return arg.removeprefix("--json=")
    return None


def _fail(error: SnnDeployError, args: list[str]) -> None:
    if _json_target(args) == "-":
        import json

        document = {
            "schema": 1,
            "tool": f"snn-deploy {__version__}",
            "ok": False,
            "error": error.as_dict(),
        }
        click.echo(json.dumps(document, indent=2, sort_keys=True))
    click.echo(str(error), err=True)


def _usage(error: click.ClickException, args: list[str]) -> None:
    from snn_deploy.errors import UsageError

    if _json_target(args) == "-":
        _fail(UsageError(error.format_message(), hint="snn-deploy COMMAND --help"), args)
    else:
        error.show()


def _bug(error: Exception, args: list[str]) -> None:
    import traceback

    traceback.print_exc()
    click.echo(
        f"\nThis is a bug in snn-deploy {__version__}, not in your model. Please report it with "
        "the lines above, the command that you typed,\nand the output of: snn-deploy doctor",
        err=True,
    )
    if _json_target(args) == "-":
        import json

        message = printable(f"{type(error).__name__}: {error}")
        content = {"kind": "bug", "exit_code": EXIT_BUG, "message": message}
        click.echo(json.dumps({"schema": 1, "ok": False, "error": content}, indent=2))


if __name__ == "__main__":
    main()
