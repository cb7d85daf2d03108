"""Tables and lines of text: entries whose values are rows by the names of their columns, or lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.data.converters.base import BadEntry
from weft.data.converters.jsonfile import Entry, Noted


def halves(line: str) -> tuple[str, str]:
    """A name, and what stands behind the first blank; nothing where there is none."""
    name, *said = line.split(None, 1)
    return name, "".join(said).rstrip()


def table(file: Path, separator: str = "\t", *, head: Sequence[str] = (), escape: str | None = None) -> Iterator[Entry]:
    """Rows as dictionaries by the names in the first line, or in ``head`` where a file has no such line.

    Between commas a cell may be quoted; between tabs nothing is, and a backslash escapes where ``escape`` says so.
    """
    options: dict[str, Any] = {"delimiter": separator}
    if separator == "\t":
        options |= {"quoting": csv.QUOTE_NONE, "escapechar": escape}
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, **options)
            named = "a row has" if head else "the first line names"
            head = head or next(rows, [])
            for row in rows:
                value: Any = Noted(zip(head, row, strict=False))
                if len(row) != len(head):
                    value = BadEntry(f"has {len(row)} columns, {named} {len(head)}")
                if row:
                    yield Entry(value, str(file), line=rows.line_num)
    except UnicodeDecodeError:
        yield Entry(BadEntry("is not UTF-8: save the file as UTF-8"), str(file))
    except csv.Error as e:
        yield Entry(BadEntry(f"cannot be read further as a table ({e})"), str(file))
    except OSError as e:
        raise WeftError(f"{file}: cannot be read ({e.strerror}): check the path") from None


def cell(row: dict[str, str], column: str) -> str:
    if column not in row:
        raise BadEntry(f"there is no such column; there are {', '.join(row)}", field=column)
    return row[column]
