"""The face-track cache: exact, bounded, and never in the way."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from orchestrator.pipeline.analyse import Extent
from orchestrator.pipeline.tracks import Detections, TrackCache
from preprocess.cuts import REACH
from tests.clips import info_of


def detections(frame_count: int, seed: int = 0, is_whole: bool = True) -> Detections:
    noise = np.random.default_rng(seed)
    counts = noise.integers(0, 3, frame_count)
    return Detections(
        pts=np.arange(frame_count) * 512,
        is_key=np.arange(frame_count) % 12 == 0,
        face_counts=counts,
        faces=noise.random((int(counts.sum()), 15), np.float32),
        changes=noise.random((frame_count, REACH), np.float32),
        is_whole=is_whole,
        damaged_packet_count=seed,
    )


def same(one: Detections, other: Detections) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("pts", "is_key", "face_counts", "faces", "changes"))
    return arrays and (one.is_whole, one.damaged_packet_count) == (other.is_whole, other.damaged_packet_count)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"some video")
    return path


def test_what_was_stored_comes_back(tmp_path: Path, video: Path) -> None:
    cache = TrackCache(tmp_path / "tracks", 1 << 20)
    key = cache.key(video, "detector")
    assert cache.load(key) is None
    cache.store(key, detections(40, seed=3))
    found = cache.load(key)
    assert found is not None and same(found, detections(40, seed=3))


def test_key_is_the_content_and_the_detector_and_nothing_else(tmp_path: Path, video: Path) -> None:
    cache = TrackCache(tmp_path / "tracks", 1 << 20)
    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    copy.write_bytes(video.read_bytes())
    other.write_bytes(b"another video")
    assert cache.key(video, "detector") == cache.key(copy, "detector")
    assert len({cache.key(video, "detector"), cache.key(other, "detector"), cache.key(video, "detector 2")}) == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "locked", "of another version", "other arrays"])
def test_damaged_entry_is_as_good_as_none_and_goes(tmp_path: Path, damage: str) -> None:
    cache = TrackCache(tmp_path, 1 << 20)
    cache.store("key", detections(40))
    (entry,) = tmp_path.glob("*.npz")
    whole = entry.read_bytes()
    middle, listed = len(whole) // 2, whole.index(b"PK\1\2")  # the archive's list of what it holds
    damaged = {
        "empty": b"",
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "text": b"not an archive",
        "locked": whole[: listed + 8] + bytes([whole[listed + 8] ^ 1]) + whole[listed + 9 :],
        "of another version": whole[: listed + 6] + b"\xff" + whole[listed + 7 :],
    }
    if damage in damaged:
        entry.write_bytes(damaged[damage])
    else:
        with entry.open("wb") as file:
            np.savez(file, pts=np.zeros(3), is_key=np.zeros(2, bool), face_counts=np.zeros(3, int), faces=np.zeros((0, 15), np.float32),
                     changes=np.zeros((3, 1), np.float32), is_whole=np.array(True), damaged_packet_count=np.array(0))  # fmt: skip
    assert cache.load("key") is None
    assert not list(tmp_path.iterdir())


def test_cache_stays_within_its_bound_and_lets_go_of_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = TrackCache(tmp_path, 1 << 30)
    for age, key in ((300, "old"), (200, "older but used"), (100, "young")):
        cache.store(key, detections(200))
        os.utime(tmp_path / f"{key}.npz", (tmp_path.stat().st_mtime - age,) * 2)
    assert cache.load("older but used")
    size = (tmp_path / "old.npz").stat().st_size
    TrackCache(tmp_path, 3 * size + 10).store("new", detections(200))
    assert {path.stem for path in tmp_path.iterdir()} == {"older but used", "young", "new"}


def test_what_a_killed_process_had_begun_to_write_goes_with_the_oldest(tmp_path: Path) -> None:
    begun = tmp_path / ".0123.partial"
    begun.write_bytes(bytes(10_000))
    os.utime(begun, (0, 0))
    TrackCache(tmp_path, 9_000).store("new", detections(3))
    assert [path.stem for path in tmp_path.iterdir()] == ["new"]


def test_entry_that_may_not_be_removed_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "old.npz").mkdir()  # what unlink refuses, whoever runs this
    TrackCache(tmp_path, 0).store("new", detections(3))
    assert [path.stem for path in tmp_path.iterdir()] == ["old"]


def test_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = TrackCache(tmp_path / "file" / "tracks", 1 << 20)
    cache.store("key", detections(3))
    assert cache.load("key") is None


def test_entry_serves_every_render_that_looks_at_no_more_frames() -> None:
    part, whole = detections(40, is_whole=False), detections(40, is_whole=True)
    info = info_of()

    def served(seen: Detections, until_s: Fraction | None, max_frames: int = 1000) -> int | None:
        return Extent(until_s, max_frames).frame_count(seen.pts, seen.is_whole, info)

    assert served(part, Fraction(39, 25)) == 39 and served(part, Fraction(1, 5)) == 5
    assert served(part, Fraction(39, 25) + Fraction(1, 1000)) is None, "whether there is another frame inside is not known"
    assert served(part, None) is None and served(part, None, 40) == 40 and served(part, Fraction(9), 7) == 7
    assert served(whole, None) == served(whole, Fraction(10_000)) == 40
    first = part.first(7)
    assert len(first.pts) == len(first.by_frame()) == 7
    for rows, expected in zip(first.by_frame(), part.by_frame(), strict=False):
        assert np.array_equal(rows, expected)
    assert [len(rows) for rows in part.by_frame()] == list(part.face_counts)
    assert detections(0).by_frame() == []
