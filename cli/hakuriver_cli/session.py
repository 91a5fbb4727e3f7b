"""What a command works with: the settings, a client and a printer, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from hakuriver.errors import HakuRiverError, UnauthenticatedError, UnreachableError
from hakuriver.ids import parse_id
from hakuriver.names import VPS_NAME
from hakuriver_cli.errors import report
from hakuriver_cli.options import Common
from hakuriver_cli.output import Format, Printer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hakuriver import AsyncClient, Client
    from hakuriver.config import Settings
    from hakuriver_cli.output import View

T = TypeVar("T", int, str)
Row = TypeVar("Row", bound="BaseModel")


class Session:
    def __init__(self, common: Common, default: Format = Format.TABLE) -> None:
        self.common = common
        self.printer = Printer(common.output or default)

    @cached_property
    def settings(self) -> Settings:
        from hakuriver.config import load  # noqa: PLC0415  (loaded only by commands that need it)

        return load(self.common.config)

    @cached_property
    def client(self) -> Client:
        from hakuriver.client import Client  # noqa: PLC0415

        return Client.from_settings(self.settings, self.common.config)

    def async_client(self) -> AsyncClient:
        from hakuriver.client import AsyncClient  # noqa: PLC0415

        return AsyncClient.from_settings(self.settings, self.common.config)

    def rows(self, ask: Callable[[], Iterable[Row]], view: View[Row], *, watch: bool) -> int:
        """Prints a list; with `watch`, again and again, for what tells nobody when it changes."""
        if not watch:
            self.printer.rows(ask(), view)
            return 0
        import asyncio  # noqa: PLC0415  (loads much, and few commands need it)

        from hakuriver_cli.watch import watch_rows  # noqa: PLC0415

        async def fetch(_client: AsyncClient) -> list[Row]:
            return list(await asyncio.to_thread(ask))

        return watch_rows(self, fetch, view, events=False)

    def newest(self, ask: Callable[[Any], Any], view: View[Row], limit: int, *, watch: bool) -> int:
        """Prints the newest of a list, so many at most; 0 is all. `ask` is given a client of either kind, and gives an
        iterator of its kind.
        """
        if watch:
            from hakuriver_cli.watch import first, watch_rows  # noqa: PLC0415  (loads the client for asyncio)

            def fetch(client: AsyncClient) -> Awaitable[list[Row]]:
                return first(ask(client), limit or None)

            return watch_rows(self, fetch, view, events=True)
        found = list(islice(ask(self.client), limit or None))
        self.printer.rows(found, view)
        if limit and len(found) == limit and self.printer.err.isatty():
            self.printer.say(f"(the newest {limit}; --limit 0 shows all)")
        return 0

    def task_id(self, reference: str) -> int:
        """The id of a task, or of the VPS of that name.

        Raises:
            NotFoundError: there is no VPS of that name.
            UsageError: it is neither id nor name.
        """
        return self.client.vps(reference).task_id if VPS_NAME.fullmatch(reference) else parse_id(reference)

    def for_each(self, names: Iterable[T], act: Callable[[T], None]) -> int:
        """Does it for all, reports each failure, and gives the exit code of the first.

        An error that every other one would meet too, such as a Host that does not answer, ends it.
        """
        code = 0
        for name in dict.fromkeys(names):
            try:
                act(name)
            except (UnreachableError, UnauthenticatedError):
                raise
            except HakuRiverError as error:
                report(error, self.printer.err)
                code = code or error.exit_code
        return code
