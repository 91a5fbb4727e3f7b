"""`hakuriver completion`: lets the shell complete commands and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from hakuriver.errors import UsageError
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.session import Session


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(name="SHELL", help="Which; none is the one you use.")
    ] = None,
    /,
    *,
    print_only: Annotated[
        bool, Parameter(name="--print", help="Print the script instead of installing it.")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Install completion for your shell, or print the script for it."""
    from cyclopts.completion.detect import ShellDetectionError, detect_shell  # noqa: PLC0415  (rarely needed)

    from hakuriver_cli.commands import application  # noqa: PLC0415  (which loads this module by its name)

    printer = Session(common).printer
    try:
        wanted = shell or detect_shell()
    except ShellDetectionError:
        raise UsageError("cannot tell which shell you use", "name it: `hakuriver completion bash`") from None
    app = application()
    if print_only:
        printer.out.write(app.generate_completion(shell=wanted))
        return
    printer.say(f"installed {app.install_completion(shell=wanted)}; open a new shell to use it")
