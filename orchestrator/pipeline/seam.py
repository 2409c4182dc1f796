"""The seam of a loop: its end fades into its beginning."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import cv2

from orchestrator.media.planes import sample_views
from orchestrator.pipeline.output_frames import Shown


def faded(shown: Generator[Shown]) -> Generator[Shown]:
    """Yield the output's frames; one that is faded in is mixed into the one before it, plane by plane, with its mouth in place already."""
    held: Shown | None = None
    with closing(shown):
        for frame in shown:
            if frame.weight is None:
                if held is not None:
                    yield held
                held = frame
            else:
                assert held is not None
                held = _mixed(held, frame, frame.weight)
        if held is not None:
            yield held


def _mixed(under: Shown, over: Shown, weight: float) -> Shown:
    under.picture.make_writable()
    for below, above in zip(sample_views(under.picture), sample_views(over.picture), strict=True):
        below[:] = cv2.addWeighted(below, 1 - weight, above, weight, 0)
    return replace(under, is_edited=True)
