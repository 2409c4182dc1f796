"""One number for how far a job is."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs.progress import ProgressBoard, percent_of
from orchestrator.pipeline.progress import Progress, Stage

STAGES: tuple[Stage, ...] = ("read", "analyse", "render", "finish")


def moment(stage: Stage, done: int, total: int, **more: object) -> Progress:
    return Progress(stage, done, total, 10.0, (total - done) / 10, **more)  # type: ignore[arg-type]


def test_percent_grows_through_the_stages_and_leaves_the_last_one_to_the_finished_job() -> None:
    percents = [percent_of(moment(stage, done, 200)) for stage in STAGES for done in range(201)]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 99)
    assert percent_of(moment("render", 100, 200)) == 56
    assert percent_of(moment("analyse", 5, 0)) == 0, "nothing is known yet"


@given(st.lists(st.tuples(st.sampled_from(STAGES), st.integers(0, 50)), min_size=1), st.integers(0, 100))
def test_percent_never_falls_whatever_is_repeated(moments: list[tuple[Stage, int]], reached: int) -> None:
    board, last = ProgressBoard(reached, None), reached
    for stage, done in moments:
        board.report(moment(stage, done, 50))
        values = board.take()
        assert values is not None and last <= values["percent"] <= 100
        last = values["percent"]


def test_moment_is_written_down_once() -> None:
    board = ProgressBoard(0, None)
    assert board.take() is None
    board.report(moment("render", 10, 50, faces_found=20, passed_through=3, segment_count=2))
    values = board.take()
    assert values is not None
    assert (values["stage"], values["done"], values["total"], values["eta_s"]) == ("render", 10, 50, 4.0)
    assert (values["faces_found"], values["passed_through"], values["segments_done"]) == (20, 3, 2)
    assert board.take() is None


def test_what_an_attempt_failed_with_is_forgotten_when_the_next_one_gets_further() -> None:
    board = ProgressBoard(40, None, segment_count=2)
    for stage, segment_count, is_overcome in (("analyse", 0, False), ("render", 2, False), ("render", 3, True)):
        board.report(moment(stage, 10, 50, segment_count=segment_count))  # type: ignore[arg-type]
        values = board.take()
        assert values is not None and ("error" in values and values["error"] is None) == is_overcome


def test_an_earlier_stage_does_not_take_back_what_was_found() -> None:
    board = ProgressBoard(40, None)
    board.report(moment("analyse", 10, 50))
    values = board.take()
    assert values is not None and not {"faces_found", "passed_through", "segments_done"} & set(values)


def test_time_left_counts_the_render_that_follows_where_its_speed_is_known() -> None:
    for expected_speed, eta_s in ((None, None), (20.0, 4.0 + 100 / 20)):
        board = ProgressBoard(0, expected_speed)
        board.total_frames = 100
        board.report(moment("analyse", 10, 50))
        values = board.take()
        assert values is not None and values["eta_s"] == eta_s
