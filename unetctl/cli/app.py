"""The command line: `unetctl COMMAND ...`. Nothing heavy is imported before a command runs."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import unetctl
from unetctl.cli import benchmark, export, import_state, info, predict, sample, stitch, tasks, train
from unetctl.errors import EXIT_CODES


class Root(TyperGroup):
    """Explains itself in plain text, in half the time that panels take; the commands keep theirs."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help of `unetctl` itself."""
        self.rich_markup_mode = None
        super().format_help(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The contract of exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


app = typer.Typer(
    cls=Root,
    name="unetctl",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unetctl {unetctl.__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: Version = False) -> None:
    """U-Nets for images of any size: seamless, resumable, in the memory you allow."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


app.command()(predict.predict)
app.command()(train.train)
app.command()(stitch.stitch)
app.add_typer(benchmark.app, name="benchmark")
app.command()(export.export)
app.command(name="import")(import_state.import_state)
app.command()(tasks.tasks)
app.command()(info.info)
app.command()(sample.sample)


def main() -> None:
    """The console script."""
    app(prog_name="unetctl")
