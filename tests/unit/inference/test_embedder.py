"""From which likeness on two faces are one person's."""

import pytest

from orchestrator.errors import ContractMismatch
from orchestrator.inference.embedder import min_similarity


def test_model_says_from_which_likeness_on_two_faces_are_one_persons() -> None:
    assert min_similarity({"min_similarity": "0.955"}) == 0.955
    assert min_similarity({"crop_template": "arcface_112_v2"}) == 0.3, "as models were installed before it was a parameter"


@pytest.mark.parametrize("said", ["high", "1.5", "nan", ""])
def test_what_is_no_cosine_is_refused(said: str) -> None:
    with pytest.raises(ContractMismatch, match="expected min_similarity of -1 to 1, found"):
        min_similarity({"min_similarity": said})
