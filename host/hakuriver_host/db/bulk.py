"""Many rows in one statement.

Python's sqlite3 gives the interpreter up and takes it back at each step of a statement, so a list of rows written or
read one by one waits behind a busy event loop once for each row. On SQLite one step therefore does them all: a few rows
are the values of one statement, which is made once for each number of rows; many travel as one JSON value
(https://www.sqlite.org/json1.html, `json_each` and `json_group_array`), which takes SQLite twice as long. PostgreSQL's
driver moves a list in one go by itself.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from sqlalchemy import Boolean, Connection, Select, Table, bindparam, func, insert, select, update

Row = dict[str, Any]

_FEW = 32


def insert_rows(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Inserts rows that all have the same columns."""
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(insert(table), rows)
        return
    columns = tuple(rows[0])
    names = ", ".join(f'"{column}"' for column in columns)
    _execute(connection, f'INSERT INTO "{table.name}" ({names}) {{rows}}', columns, rows)


def update_rows(connection: Connection, table: Table, key: str, rows: dict[int, Row]) -> None:
    """Updates rows by their key; all have the same columns."""
    if not rows:
        return
    keyed = [{"_key": value, **row} for value, row in rows.items()]
    if connection.dialect.name != "sqlite":
        connection.execute(update(table).where(table.c[key] == bindparam("_key")), keyed)
        return
    columns = tuple(keyed[0])
    changes = ", ".join(f'"{column}" = given.c{index}' for index, column in enumerate(columns) if index)
    statement = (
        f'UPDATE "{table.name}" SET {changes} FROM ({{rows}}) AS given '  # noqa: S608 - names are the table's own
        f'WHERE "{table.name}"."{key}" = given.c0'
    )
    _execute(connection, statement, columns, keyed)


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


def _execute(connection: Connection, statement: str, columns: tuple[str, ...], rows: list[Row]) -> None:
    """Executes a statement with rows of these columns in the place of `{rows}`, where their values are `c0`, `c1`, ..."""
    if len(rows) <= _FEW:
        values = tuple(value for row in rows for value in row.values())
        connection.exec_driver_sql(_with_values(statement, len(columns), len(rows)), values)
    else:
        packed = json.dumps([list(row.values()) for row in rows], ensure_ascii=False)
        connection.exec_driver_sql(_with_json(statement, len(columns)), (packed,))


@cache
def _with_values(statement: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    # A list of values calls its columns column1, column2, ...
    names = ", ".join(f"column{index + 1} AS c{index}" for index in range(columns))
    values = ", ".join([row] * rows)
    return statement.format(rows=f"SELECT {names} FROM (VALUES {values})")  # noqa: S608 - marks alone


@cache
def _with_json(statement: str, columns: int) -> str:
    values = ", ".join(f"json_extract(value, '$[{index}]') AS c{index}" for index in range(columns))
    return statement.format(rows=f"SELECT {values} FROM json_each(?)")  # noqa: S608 - as above
