"""How coded pictures are turned and mirrored before they are shown."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Orientation:
    """A turn, and maybe an exchange of left and right behind it."""

    turn_deg: int = 0
    """Counter-clockwise: 0, 90, 180 or 270."""
    is_mirrored: bool = False

    @property
    def inverse(self) -> "Orientation":
        """What makes a shown picture the coded one again. To turn and mirror once more undoes both."""
        return self if self.is_mirrored else Orientation(-self.turn_deg % 360)

    def shown_wh(self, coded_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a coded picture as it is shown. A shown one's, as it is coded, is the same."""
        return coded_wh if self.turn_deg % 180 == 0 else (coded_wh[1], coded_wh[0])

    def shown(self, coded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an (h, w, 3) coded picture as it is shown, a view."""
        turned = np.rot90(coded, self.turn_deg // 90)
        return turned[:, ::-1] if self.is_mirrored else turned

    def to_coded(self, points: NDArray[np.float32], shown_wh: tuple[int, int]) -> NDArray[np.float32]:
        """Bring (..., 2) points, px of the shown picture, to px of the coded one."""
        width, height = shown_wh
        x, y = np.moveaxis(points, -1, 0)
        x = width - 1 - x if self.is_mirrored else x
        turned = {0: (x, y), 90: (height - 1 - y, x), 180: (width - 1 - x, height - 1 - y), 270: (y, width - 1 - x)}
        return np.stack(turned[self.turn_deg], axis=-1).astype(np.float32)


UPRIGHT = Orientation()
"""As coded."""
