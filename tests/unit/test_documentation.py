"""The documentation says what the code does."""

import re
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.api.problems import v2_status
from orchestrator.api.v2_errors import catalogue
from orchestrator.media.formats import CODECS
from orchestrator.settings import settings_table

ROOT = Path(__file__).resolve().parents[2]


def test_readme_has_the_current_table_of_settings() -> None:
    section = re.search(r"<!-- settings:.*?-->\n(.*?)\n<!-- end of settings -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert section and section.group(1) == settings_table(), "put the output of `python -m orchestrator.settings` into README.md"


def codes() -> set[str]:
    """Return the codes of all errors that a user can meet: the leaves of the tree, and its root for mistakes in the program."""
    kinds, leaves = [errors.RenderError], {errors.RenderError.code}
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if not kind.__subclasses__():
            leaves.add(kind.code)
    return leaves


def test_each_error_code_is_explained_in_both_readmes_and_in_the_tree() -> None:
    for text in ((ROOT / "README.md").read_text(), (ROOT / "README.zh-CN.md").read_text(), str(errors.__doc__)):
        assert not {code for code in codes() if code not in text}


def test_each_code_is_in_the_catalogue_with_its_status_and_explained_in_both_readmes() -> None:
    refusal = re.compile(r'(?:Problem|problem)\(\s*(?:request\.scope, )?(\d{3}), "([a-z_]+)"')
    refused = {(code, int(status)) for path in (ROOT / "orchestrator" / "api").glob("*.py") for status, code in refusal.findall(path.read_text())}
    assert {"unsupported_media_type", "internal_error", "wrong_origin"} <= {code for code, _ in refused}
    known = {info.code: info.statusCode for info in catalogue()}
    assert codes() <= set(known)
    assert {(code, v2_status(status)) for code, status in refused} <= set(known.items())
    for text in ((ROOT / "README.md").read_text(), (ROOT / "README.zh-CN.md").read_text()):
        assert not {code for code in known if f"`{code}`" not in text}


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_table_of_output_formats_has_every_codec_with_its_containers(name: str) -> None:
    rows = {line.split("|")[1].strip(" `"): line.split("|")[3] for line in (ROOT / name).read_text().splitlines() if line.startswith("| `")}
    for codec in CODECS.values():
        assert tuple(re.findall(r"\w+", rows[codec.name])) == codec.containers
