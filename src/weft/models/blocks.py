"""Square blocks of an image's patches, each of which becomes one token."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.models import config
from weft.models.connectors import InOrder


class Blocks(InOrder):
    """Of ``merge`` patches of a ``grid`` (rows, columns), themselves in raster order; filled up with zeros."""

    def __init__(self, merge: int, grid: tuple[int, int]) -> None:
        super().__init__(merge)
        self.grid, self.side = grid, math.isqrt(merge)
        if self.side**2 != merge:
            raise WeftError(
                f"connector: with grid=true, merge must be a square number, and {merge} is not; take 4 or 9"
            )

    @property
    def merged(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.grid[0] // self.side), -(-self.grid[1] // self.side)

    def tokens(self, features: int) -> int:
        return self.merged[0] * self.merged[1]

    def groups(self, features_NTD: torch.Tensor) -> torch.Tensor:
        n, d, side = len(features_NTD), features_NTD.shape[2], self.side
        (rows, columns), (down, across) = self.grid, self.merged
        image = F.pad(features_NTD.reshape(n, rows, columns, d), (0, 0, 0, -columns % side, 0, -rows % side))
        blocks = image.reshape(n, down, side, across, side, d).transpose(2, 3)
        return blocks.reshape(n, down * across, self.merge, d)


def merged_grid(section: config.Connector, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the embeddings of an image with that grid of patches; an error where they lie on none."""
    rows, columns = grid
    if section.kind == "queries":
        raise WeftError("vision.connector: what queries give lies on no grid, so none of it has a place; take another")
    if section.grid:
        return Blocks(section.group, grid).merged
    if columns % section.group:
        raise WeftError(
            f"vision.connector: places need whole rows, and merge {section.group} does not divide a row of {columns} "
            "patches; set grid"
        )
    return rows, columns // section.group
