"""The picture a detector network takes, and the role's square one in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption
from orchestrator.models.detection import Detector, map_grid
from orchestrator.models.graph import Graph, Value
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run

DEFAULT_SIZE_PX = 384
"""Side of the detector's input where the network takes any. A face has to be about 30 px wide in it: a twelfth of the frame's longer side."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture of a detector network and the role's square one in it."""

    shape_hw: tuple[int, int]
    is_square: bool = True
    """Whether it comes in that size only; else in any up to it whose sides are multiples of 32."""

    @property
    def size_px(self) -> int:
        """Side of the role's picture."""
        return min(self.shape_hw)

    @property
    def border_hw(self) -> tuple[int, int]:
        """Black rows below and columns to the right of it."""
        return self.shape_hw[0] - self.size_px, self.shape_hw[1] - self.size_px

    def cells(self, stride: int, anchors: int = 1) -> NDArray[np.float32]:
        """Return (n, 2) column and row of each cell of a map, each repeated for its anchors."""
        return map_grid(self.shape_hw, stride, anchors)


class PictureNetwork(Detector):
    """What the packs of detectors that take one picture [N, 3, H, W] do alike."""

    __slots__ = ()

    picture: Picture
    pixels: Pixels

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, 3, *self.picture.shape_hw)}

    def feed(self, item: Arrays) -> Arrays:
        return {self.input_name: self.pixels.feed(item["image"], self.picture.border_hw)}

    def see(self, graph: Graph, run: Run) -> Mapping[str, Value]:
        """Draw the input `image` and the network on it, and return the network's outputs by name."""
        sides = [self.picture.size_px] * 2 if self.picture.is_square else ["H", "W"]
        image = graph.input("image", 2, ["N", *sides, 3])
        return run({self.input_name: self.pixels.draw(graph, image, self.picture.border_hw)})


def input_shape(network: Network, pack: str, expected: list[str], options: PackOptions) -> tuple[int, int]:
    """Return height and width of the input of a network with one picture [N, 3, H, W].

    The role's pictures are square. In an oblong input they lie at the top left, black beside or below.

    Raises:
        UnsuitableModel: the network has other inputs.
        InvalidOption: the options ask for another size than the file has, or one that is no multiple of 32.
    """
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4:
        raise network.mismatch(pack, expected)
    _, channels, height, width = network.inputs[0].shape
    if isinstance(channels, int) and channels not in (0, 3):
        raise network.mismatch(pack, expected)
    fixed = [side for side in (height, width) if isinstance(side, int) and side > 0]
    if fixed and options.size_px not in (None, min(fixed)):
        raise InvalidOption(
            f"{network.file} takes pictures of {min(fixed)} px and no others; leave out --size, or export it with free height and width."
        )
    usual = min(fixed, default=options.size_px or DEFAULT_SIZE_PX)
    shape_hw = tuple(side if isinstance(side, int) and side > 0 else usual for side in (height, width))
    if any(side % 32 or not 96 <= side <= 2048 for side in shape_hw):
        wanted = "multiples of 32 between 96 and 2048"
        raise InvalidOption(f"A detector's picture of {shape_hw[1]}x{shape_hw[0]} px cannot be used; sides (--size) have to be {wanted}.")
    return shape_hw[0], shape_hw[1]
