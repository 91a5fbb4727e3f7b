"""Many rows in one statement.

Python's sqlite3 gives the interpreter up and takes it back at each step of a statement, so a list of rows written or
read one by one waits behind a busy event loop once for each row. On SQLite the rows therefore travel as one JSON value,
and one step does them all (https://www.sqlite.org/json1.html, `json_each` and `json_group_array`). PostgreSQL's driver
moves a list in one go by itself.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from sqlalchemy import Boolean, Connection, Select, Table, bindparam, func, insert, select, text, update
from sqlalchemy.sql.elements import TextClause

Row = dict[str, Any]


def insert_rows(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Inserts rows that all have the same columns."""
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(insert(table), rows)
        return
    connection.execute(_insert_statement(table, tuple(rows[0])), {"rows": _packed(rows)})


def update_rows(connection: Connection, table: Table, key: str, rows: dict[int, Row]) -> None:
    """Updates rows by their key; all have the same columns."""
    if not rows:
        return
    keyed = [{"_key": value, **row} for value, row in rows.items()]
    if connection.dialect.name != "sqlite":
        connection.execute(update(table).where(table.c[key] == bindparam("_key")), keyed)
        return
    connection.execute(_update_statement(table, key, tuple(keyed[0])), {"rows": _packed(keyed)})


def select_rows(connection: Connection, table: Table, query: Select[Any]) -> list[Row]:
    """Whole rows of a table, in the order of the query."""
    columns = list(table.c)
    wanted = query.with_only_columns(*columns)
    if connection.dialect.name != "sqlite":
        return [dict(row._mapping) for row in connection.execute(wanted)]  # noqa: SLF001 - public by its documentation
    inner = wanted.subquery()
    packed = connection.execute(select(func.json_group_array(func.json_array(*inner.c)))).scalar_one()
    names = [column.name for column in columns]
    rows = [dict(zip(names, values, strict=True)) for values in json.loads(packed)]
    for name in (column.name for column in columns if isinstance(column.type, Boolean)):
        for row in rows:
            row[name] = bool(row[name])
    return rows


def _packed(rows: list[Row]) -> str:
    return json.dumps([list(row.values()) for row in rows], ensure_ascii=False)


@cache
def _insert_statement(table: Table, columns: tuple[str, ...]) -> TextClause:
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(f"json_extract(value, '$[{index}]')" for index in range(len(columns)))
    return text(f'INSERT INTO "{table.name}" ({names}) SELECT {values} FROM json_each(:rows)')  # noqa: S608 - names are the table's own


@cache
def _update_statement(table: Table, key: str, columns: tuple[str, ...]) -> TextClause:
    """The first of the columns holds the key."""
    values = ", ".join(f"json_extract(value, '$[{index}]') AS c{index}" for index in range(len(columns)))
    changes = ", ".join(f'"{column}" = given.c{index}' for index, column in enumerate(columns) if index)
    return text(
        f'UPDATE "{table.name}" SET {changes} FROM (SELECT {values} FROM json_each(:rows)) AS given '  # noqa: S608 - as above
        f'WHERE "{table.name}"."{key}" = given.c0'
    )
