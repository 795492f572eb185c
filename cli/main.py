"""The ``ldmlr`` command: loads a subcommand only when it is used, so that help answers at once."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ldmlr.boundary import out_of_memory
from ldmlr.errors import LdmlrError, UsageError
from ldmlr.files import os_error
from ldmlr.invocation import note_invocation
from ldmlr.remote import as_path

from .nearest import Group, in_style
from .origin import with_file
from .spelling import spelling_of

# Bytes of stack that every thread needs at least: recursion to Python's own limit in C code, and some.
STACK = 1 << 20
# Bytes of address space below which nothing more can be expected to work.
SCARCE = 64 << 20

# Command, module and help line. The line stands here so that ``ldmlr --help`` imports no
# command; a test compares it with the command's own help.
COMMANDS = {
    "run": "All three stages: what is missing is run, what is there is reused.",
    "baseline": "Stage 1: train a baseline network on a long-tailed image set.",
    "encode": "Stage 1: encode images into a feature store, with the baseline's head.",
    "diffuse": "Stage 2: train the class-conditional latent diffusion model on a store.",
    "generate": "Stage 2: draw pseudo-features into a store.",
    "augment": "Stage 2 in one go: stores in, balanced stores out.",
    "finetune": "Stage 3: fine-tune the head on encoded and pseudo-features.",
    "evaluate": "Accuracy of heads: all, many, medium, few and per class, and calibration.",
    "predict": "Class names and probabilities for new features or images.",
    "export": "A head, or encoder and head, in the form of another program.",
    "compare": "LDMLR beside other methods: same protocol, several seeds, mean and standard deviation.",
    "ablate": "One setting of generation varied: ratio, groups, steps, guidance, axes and others.",
    "report": "A self-contained HTML page of a run: figures, pictures, verdict.",
    "model": "Show what a model file holds, and write the card of a diffusion model.",
    "store": "Inspect, verify, import, export and merge feature stores.",
    "bench": "Throughput of this machine beside its ceilings and its peers.",
    "info": "Versions, CPU instruction sets, CUDA devices and the kernels that will run.",
}


# What an interrupted command has kept: how to go on. All others begin anew.
GOES_ON = {
    "run": "The same command goes on where it stopped.",
    **dict.fromkeys(
        ("baseline", "diffuse", "generate", "augment"),
        "The same command with --resume goes on where it stopped.",
    ),
    "encode": "The same command begins anew; with --resume it keeps the shards that are finished.",
}


class LazyGroup(Group):
    """A group whose subcommands are modules of this package, imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the stages."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error over a value of its --config file names the file."""
        try:
            return super().invoke(ctx)
        except (LdmlrError, click.UsageError) as error:
            named = with_file(ctx, error) if isinstance(error, UsageError | click.UsageError) else error
            command = (
                None if ctx.invoked_subcommand is None else self.get_command(ctx, ctx.invoked_subcommand)
            )
            if command is None or not isinstance(named, LdmlrError):
                raise named from None
            named.message = named.spelled(spelling_of(command))
            raise named from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="ldmlr")
def cli() -> None:
    """Latent diffusion feature augmentation for long-tailed recognition (LDMLR).

    \b
    Example:
      ldmlr run digits-lt --out runs/digits
    """


def _check_stack(again: bool) -> None:
    """Refuse a stack too small for libraries of linear algebra, which would end the process by a signal.

    Where only the soft limit is in the way it is raised. Threads have the stack that was allowed when the
    process began, so that it has to begin again.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == resource.RLIM_INFINITY or soft >= STACK:
        return
    if again and (hard == resource.RLIM_INFINITY or hard >= STACK):
        resource.setrlimit(resource.RLIMIT_STACK, (STACK, hard))
        os.execv(sys.executable, sys.orig_argv)
    click.echo(
        f"Error: the stack may have {soft >> 10} kB, with which libraries crash; allow {STACK >> 10} kB or "
        f"more (ulimit -s {STACK >> 10})",
        err=True,
    )
    sys.exit(1)


def main(args: list[str] | None = None) -> None:
    """Run the command line; end every error in one line and the right exit status."""
    _check_stack(again=args is None)
    # Read when torch is loaded. Threads that spin while they wait for each other make a training on a busy
    # machine several times slower, and gain little on one that is idle.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    terminated: list[int] = []
    note_invocation(sys.argv[1:] if args is None else args)
    try:
        with _sigterm_unwinds(terminated):
            status = cli.main(args, prog_name="ldmlr", standalone_mode=False)
    except click.exceptions.Abort:
        words = sys.argv[1:] if args is None else args
        command = next((word for word in words if word in COMMANDS), "")
        click.echo(
            f"{'Terminated' if terminated else 'Interrupted'}; nothing is half-written. "
            f"{GOES_ON.get(command, 'The same command begins anew.')}",
            err=True,
        )
        sys.exit(128 + terminated[0] if terminated else 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        message = in_style(error)
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        if message.endswith("?"):
            hint = hint.replace("; see", " See", 1)
        options = [] if context is None else [flag for each in context.command.params for flag in each.opts]
        if isinstance(error, click.NoSuchOption) and "--set" in options:
            hint = f"; an option of a stage is given as --set STAGE.KEY=VALUE; see{hint.partition('ee')[2]}"
            message = message.rstrip("?")
        click.echo(f"Error: {message}{hint}", err=True)
        sys.exit(error.exit_code)
    except LdmlrError as error:
        click.echo(f"Error: {error.on_command_line()}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        line = _line(error)
        if line is None:
            raise
        click.echo(f"Error: {line}", err=True)
        sys.exit(1)
    finally:
        note_invocation(None)
    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _sigterm_unwinds(terminated: list[int]) -> Iterator[None]:
    """Let SIGTERM, by which schedulers end a job, unwind as Ctrl-C does: no temporary file stays behind."""

    def terminate(number: int, frame: object) -> None:
        terminated.append(number)
        if len(terminated) == 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(error: Exception) -> str | None:
    """Return what to say of an error of the system or of memory; None for any other, which is a fault."""
    if isinstance(error, OSError) and not out_of_memory(error):
        if isinstance(error.filename, str):
            return os_error(error, as_path(error.filename)).message
        return f"{error.strerror or error}; check the path, the permissions and the disk"
    if not (out_of_memory(error) or _at_memory_limit()):
        return None
    # The first line tells how much was asked for; PyTorch adds where in its sources.
    detail = str(error).strip().split("\n")[0].rpartition("] ")[2]
    return (
        f"the memory is used up{f' ({detail})' if detail else ''}; "
        "take fewer rows or dimensions, a smaller model or batch, or a larger machine"
    )


def _at_memory_limit() -> bool:
    """Tell whether the process has all but used up the address space that it may have (``ulimit -v``).

    What then fails does so in ways that have nothing to do with memory: a thread that does not start, a
    library that is not found, an attribute that could not be looked up.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return False
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
    except (OSError, MemoryError):
        return True
    return limit - pages * resource.getpagesize() < SCARCE
