"""Installing packs: proven or refused, whole or not at all, and the way back in one command."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import helper, numpy_helper
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from orchestrator import errors
from orchestrator.cli import app
from orchestrator.cli_doctor import outdated_models
from orchestrator.models import install as install_module
from orchestrator.models.config import CONFIG_FILES
from orchestrator.models.install import builder_digest, install_pack, is_outdated, use_installed, verify_version
from orchestrator.models.options import PackOptions
from orchestrator.models.packs import find_pack
from orchestrator.models.repository import Version, find_version, read_versions, served_version, use_version
from orchestrator.settings import Settings
from tests.networks import (
    FACEFUSION_NAMES,
    Builder,
    save_edtalk,
    save_embedder,
    save_enhancer,
    save_face_parser,
    save_mdx,
    save_musetalk,
    save_wav2lip,
    save_xseg,
)
from tests.web import sharing

HOME = Settings().triton_home


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


def small_wav2lip(path: Path, **more: object) -> Path:
    return save_wav2lip(path, width=0.03, **more)  # type: ignore[arg-type]


def install(name: str, repository: Path, source: Path | str | None = None, digest: str | None = None, **options: object) -> Version:
    return install_pack(find_pack(name), repository, HOME, None if source is None else str(source), digest, PackOptions(**options))[-1]  # type: ignore[arg-type]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def served_by(repository: Path, role: str) -> list[int]:
    """Return the versions each configuration names, which have to be one."""
    numbers = set()
    for path in CONFIG_FILES.values():
        config = text_format.Parse((repository / role / path).read_text(), model_config_pb2.ModelConfig())
        numbers |= set(config.version_policy.specific.versions)
    return sorted(numbers)


@pytest.mark.parametrize("fixed_batch", [False, True], ids=["free batch", "batch fixed at 1"])
@pytest.mark.parametrize("names", [("mel_spectrogram", "video_frames", "predicted_frames"), FACEFUSION_NAMES], ids=["wav2lip", "facefusion"])
def test_wav2lip_is_proven_by_shape_under_either_naming(repository: Path, tmp_path: Path, names: tuple[str, str, str], fixed_batch: bool) -> None:
    version = install("wav2lip", repository, small_wav2lip(tmp_path / "w.onnx", names=names, fixed_batch=fixed_batch))
    assert version.card["batching"] == "items together"
    assert version.card["proof"]["batches"] == [1, 2, 4]
    assert version.card["proof"]["reference_difference"] <= 1
    graph = onnx.load(version.folder / "model.onnx").graph
    assert [[axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in graph.input] == [
        ["N", 96, 96, 3],
        ["N", 1, 80, 16],
    ]


def test_lip_model_of_another_size_and_colour_order_gets_its_own_config(repository: Path, tmp_path: Path) -> None:
    bgr = install("wav2lip", repository, small_wav2lip(tmp_path / "w.onnx", size_px=256))
    rgb = install("wav2lip", repository, tmp_path / "w.onnx", colour="rgb")
    assert [tuple(tensor["dims"]) for tensor in rgb.card["inputs"]] == [(256, 256, 3), (1, 80, 16)]
    assert (bgr.number, rgb.number) == (1, 2)
    assert bgr.card["model_sha256"] != rgb.card["model_sha256"]
    with pytest.raises(errors.InvalidOption, match="256 px and no others"):
        install("wav2lip", repository, tmp_path / "w.onnx", size_px=96)
    with pytest.raises(errors.InvalidOption, match="rgb or bgr"):
        install("wav2lip", repository, tmp_path / "w.onnx", colour="yuv")


def test_roll_back_is_one_command_and_versions_stay(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = install("mouth-warp", repository)
    second = install("wav2lip", repository, small_wav2lip(tmp_path / "w.onnx"))
    assert (str(first), str(second)) == ("mouth-warp/1", "wav2lip/2")
    assert served_by(repository, "lip_sync") == [2]
    monkeypatch.setenv("LIPSYNC_MODEL_REPOSITORY", str(repository))
    done = CliRunner().invoke(app, ["models", "use", "mouth-warp/1"])
    assert done.exit_code == 0 and "mouth-warp/1" in done.stdout
    assert served_by(repository, "lip_sync") == [1]
    assert [version.is_served for version in read_versions(repository, "lip_sync")] == [True, False]
    use_version(repository, "lip_sync", find_version(repository, "wav2lip").number)
    assert served_by(repository, "lip_sync") == [2]
    assert [path.name for path in repository.iterdir() if path.is_dir()] == ["lip_sync"], "Triton takes every folder for a model"
    with pytest.raises(errors.InvalidOption, match="mouth-warp/1, wav2lip/2"):
        find_version(repository, "mouth-warp/7")


def test_same_file_again_is_the_same_version(repository: Path, tmp_path: Path) -> None:
    small_wav2lip(tmp_path / "w.onnx")
    assert install("wav2lip", repository, tmp_path / "w.onnx").number == 1
    install("mouth-warp", repository)
    assert install("wav2lip", repository, tmp_path / "w.onnx").number == 1
    assert served_by(repository, "lip_sync") == [1]


def bad_files(folder: Path) -> dict[str, Path]:
    """Return files that read and fit, and still must not be installed."""
    good = onnx.load(small_wav2lip(folder / "good.onnx"))
    bad = {}
    for name in ("not a number", "by chance", "wrong shape"):
        model = onnx.ModelProto()
        model.CopyFrom(good)
        last = model.graph.node[-1]
        if name == "not a number":
            weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
            weight[:] = np.nan
            model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))
        elif name == "by chance":
            model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("RandomNormalLike", [last.input[0]], ["noise"]))
            model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Add", [last.input[0], "noise"], ["noisy"]))
            model.graph.node[-1].input[0] = "noisy"
        else:
            model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Concat", [last.input[0]] * 2, ["double"], axis=2))
            model.graph.node[-1].input[0] = "double"
            del model.graph.output[0].type.tensor_type.shape.dim[2:]
            for _ in range(2):
                model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "any"
        bad[name] = folder / f"{name.replace(' ', '_')}.onnx"
        onnx.save(model, bad[name])
    return bad


@pytest.mark.parametrize("name", ["not a number", "by chance", "wrong shape"])
def test_file_that_fails_the_proof_leaves_the_repository_as_it_was(repository: Path, tmp_path: Path, name: str) -> None:
    install("mouth-warp", repository)
    before = snapshot(repository)
    with pytest.raises(errors.UnsuitableModel):
        install("wav2lip", repository, bad_files(tmp_path)[name])
    assert snapshot(repository) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_failure_while_the_version_is_put_in_place_leaves_the_old_one(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("mouth-warp", repository)
    before = snapshot(repository)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.models.repository._put_in_place", fail)
    with pytest.raises(errors.StorageError, match="No space left"):
        install("wav2lip", repository, small_wav2lip(tmp_path / "w.onnx"))
    assert snapshot(repository) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_verify_tells_a_sound_model_from_a_changed_one(repository: Path, tmp_path: Path) -> None:
    version = install("wav2lip", repository, small_wav2lip(tmp_path / "w.onnx"))
    with_network = verify_version(version, HOME)
    assert with_network is not None and with_network.reference_difference is not None
    (tmp_path / "w.onnx").unlink()
    without = verify_version(version, HOME)
    assert without is not None and without.reference_difference is None
    with (version.folder / "model.onnx").open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff\xff")
    with pytest.raises(errors.UnsuitableModel, match="not the file that was installed"):
        verify_version(version, HOME)


def test_file_comes_from_a_url_with_its_digest(repository: Path, tmp_path: Path) -> None:
    small_wav2lip(tmp_path / "w.onnx")
    with sharing(tmp_path) as site:
        version = install("wav2lip", repository, f"{site}/w.onnx")
        with pytest.raises(errors.UnreadableModel, match="sha256"):
            install("wav2lip", repository, f"{site}/w.onnx", digest="0" * 64)
        with pytest.raises(errors.StorageError, match="404"):
            install("wav2lip", repository, f"{site}/other.onnx")
    assert version.card["from"] == f"{site}/w.onnx"
    with pytest.raises(errors.InvalidOption, match="not ftp"):
        install("wav2lip", repository, "ftp://127.0.0.1/w.onnx")


def test_commands_list_show_and_verify(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_MODEL_REPOSITORY", str(repository))
    run = CliRunner()
    done = run.invoke(app, ["models", "install", "wav2lip", "--from", str(small_wav2lip(tmp_path / "w.onnx"))])
    assert done.exit_code == 0
    assert "lip_sync: wav2lip/1, proven in batches of 1, 2, 4" in done.stdout and "its licence is yours to check" in done.stdout
    listed = run.invoke(app, ["models", "list"]).stdout
    assert "* wav2lip/1" in listed and "scrfd" in listed
    card = json.loads(run.invoke(app, ["models", "card", "lip_sync", "--json"]).stdout)
    assert (card["pack"], card["file"], card["parameters"]["crop_template"]) == ("wav2lip", "w.onnx", "wav2lip_box")
    shown = run.invoke(app, ["models", "card", "wav2lip/1"]).stdout
    assert card["sha256"] in shown and card["licence"] in shown
    assert card["max_batch_size"] == 32 and re.search(r"^max_batch_size +32 \(on a CPU 8\)$", shown, re.MULTILINE)
    assert all(re.match(r"\w+ {2,}\S", line) for line in shown.splitlines()), "each value stands apart from its name"
    assert "lip_sync: wav2lip/1 is sound" in run.invoke(app, ["models", "verify"]).stdout
    served = served_version(repository, "lip_sync")
    assert served is not None and served.number == 1


def test_pack_says_what_it_needs(repository: Path) -> None:
    with pytest.raises(errors.InvalidOption, match="needs --from FILE"):
        install("yunet", repository)
    with pytest.raises(errors.InvalidOption, match="takes no file"):
        install("mouth-warp", repository, "x.onnx")
    with pytest.raises(errors.InvalidOption, match="give one of centerface"):
        find_pack("none")


def test_network_that_makes_its_weights_from_the_item_runs_item_by_item_and_right(repository: Path, tmp_path: Path) -> None:
    """StyleGAN convolutions, as in edtalk and GFPGAN, cannot take two items at once; inside the graph they run one after another."""
    lips = install("edtalk", repository, save_edtalk(tmp_path / "edtalk.onnx"), weight=0.8)
    face = install("gfpgan", repository, save_enhancer(tmp_path / "gfpgan.onnx"))
    for version in (lips, face):
        assert version.card["batching"].startswith("item by item (Conv")
        assert version.card["proof"]["reference_difference"] <= 1
    assert lips.card["options"] == {"weight": 0.8}
    assert (face.role, face.card["parameters"]) == ("face_enhancer", {"crop_template": "ffhq_512"})
    codeformer = install("gfpgan", repository, save_enhancer(tmp_path / "codeformer.onnx", has_weight=True))
    assert codeformer.number == 2


def in_half_precision(path: Path) -> Path:
    """Rewrite a file with FP16 weights, inputs and outputs."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, path)
    return path


def test_half_precision_and_weights_beside_the_file(repository: Path, tmp_path: Path) -> None:
    half = install("wav2lip", repository, in_half_precision(small_wav2lip(tmp_path / "half.onnx", fixed_batch=True)))
    assert half.card["proof"]["reference_difference"] <= 2
    assert "input mel_spectrogram FLOAT16 [1, 1, 80, 16]" in half.card["network"]
    model = onnx.load(small_wav2lip(tmp_path / "whole.onnx"))
    (tmp_path / "beside").mkdir()
    onnx.save_model(model, tmp_path / "beside" / "w.onnx", save_as_external_data=True, location="w.onnx.data", size_threshold=0)
    beside = install("wav2lip", repository, tmp_path / "beside" / "w.onnx")
    whole = install("wav2lip", repository, tmp_path / "whole.onnx")
    assert beside.card["model_sha256"] == whole.card["model_sha256"], "where the weights lay makes no difference"


def test_output_that_nobody_reads_is_left_out(repository: Path, tmp_path: Path) -> None:
    """Such as a score over the whole batch, which would keep the items from running together."""
    model = onnx.load(small_wav2lip(tmp_path / "w.onnx"))
    model.graph.node.append(helper.make_node("ReduceMean", ["predicted_frames"], ["score"], keepdims=0))
    model.graph.output.insert(0, helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "more.onnx")
    version = install("wav2lip", repository, tmp_path / "more.onnx")
    assert version.card["batching"] == "items together" and version.card["proof"]["reference_difference"] <= 1
    assert "output score FLOAT []" in version.card["network"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_landmark_network_takes_channels_first_or_last(repository: Path, tmp_path: Path, layout: str) -> None:
    net = Builder(16)
    picture = "input_1" if layout == "NCHW" else net.add("Transpose", "input_1", perm=[0, 3, 1, 2])
    points = net.conv(net.conv(picture, (3, 4), 5, 16, 0), (4, 1404), 12, relu=False)
    confidence = net.add("ReduceMean", points, axes=[1], keepdims=1)
    shape = (1, 3, 192, 192) if layout == "NCHW" else (1, 192, 192, 3)
    net.save(tmp_path / "m.onnx", [("input_1", shape)], [(points, "conv2d_21", (1, 1404, 1, 1)), (confidence, "conv2d_31", (1, 1, 1, 1))], 13)
    version = install("facemesh468", repository, tmp_path / "m.onnx")
    assert version.card["batching"] == "items together" and version.card["proof"]["reference_difference"] < 2e-3


def test_output_sizes_that_the_file_does_not_tell_are_worked_out(repository: Path, tmp_path: Path) -> None:
    path = save_musetalk(tmp_path) / "vae_encoder.onnx"
    model = onnx.load(path)
    for axis in model.graph.output[0].type.tensor_type.shape.dim:
        axis.dim_param = f"traced_{axis.dim_value}"
    onnx.save(model, path)
    install("musetalk", repository, tmp_path)
    version = served_version(repository, "musetalk_vae_encoder")
    assert version is not None and version.card["batching"] == "items together"


def test_pack_of_several_files_is_installed_whole_or_not_at_all(repository: Path, tmp_path: Path) -> None:
    install("mouth-warp", repository)
    before = snapshot(repository)
    folder = save_musetalk(tmp_path)
    (folder / "vae_decoder.onnx").write_bytes((folder / "vae_encoder.onnx").read_bytes())
    with pytest.raises(errors.UnsuitableModel, match=r"musetalk \(VAE decoder\)"):
        install("musetalk", repository, folder)
    (folder / "vae_decoder.onnx").unlink()
    with pytest.raises(errors.MissingFile):
        install("musetalk", repository, folder)
    with pytest.raises(errors.InvalidOption, match="FOLDER"):
        install("musetalk", repository, folder / "unet.onnx")
    assert snapshot(repository) == before


def test_refusal_on_the_command_line_is_a_code_a_sentence_and_the_table(repository: Path, tmp_path: Path) -> None:
    """Shapes stand in square brackets, which the terminal library would take for its own markup."""
    path = small_wav2lip(tmp_path / "w.onnx")
    command = [str(Path(sys.executable).with_name("lipsync")), "models", "install", "pfld98", "--from", str(path)]
    environment = {**os.environ, "LIPSYNC_MODEL_REPOSITORY": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("unsuitable_model: w.onnx does not fit the pack pfld98.")
    assert lines[1].split() == ["expected", "found"]
    assert lines[2].split("  ")[-1] == "input mel_spectrogram FLOAT [batch_size, 1, 80, 16]"
    assert not repository.exists(), "nothing was begun"


def test_configuration_says_which_file_it_serves(repository: Path, tmp_path: Path) -> None:
    """Two files of one shape differ in what Triton says about them, so nothing made with one is taken for the other's."""
    texts = []
    for name, width in (("a.onnx", 0.03), ("b.onnx", 0.04)):
        version = install("wav2lip", repository, save_wav2lip(tmp_path / name, width=width))
        config = text_format.Parse((repository / "lip_sync" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        assert (parameters["pack"], parameters["model_sha256"]) == ("wav2lip", version.card["model_sha256"])
        assert parameters["licence"].startswith("non-commercial")
        texts.append(parameters)
    assert texts[0] != texts[1]


def test_two_installs_at_a_time_make_two_whole_versions(repository: Path, tmp_path: Path) -> None:
    files = [small_wav2lip(tmp_path / "a.onnx"), save_wav2lip(tmp_path / "b.onnx", width=0.04)]
    (tmp_path / ".models.lip_sync.left_by_a_killed_one").mkdir()
    with ThreadPoolExecutor(2) as pool:
        numbers = [version.number for version in pool.map(lambda file: install("wav2lip", repository, file), files)]
    versions = read_versions(repository, "lip_sync")
    assert [version.number for version in versions] == [1, 2]
    assert {version.card["file"] for version in versions} == {"a.onnx", "b.onnx"}
    assert sum(version.is_served for version in versions) == 1 and set(numbers) <= {1, 2}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_operator_set_newer_than_the_servers_is_lowered_if_its_operators_exist_there(repository: Path, tmp_path: Path) -> None:
    version = install("wav2lip", repository, small_wav2lip(tmp_path / "new.onnx", opset=23))
    assert version.card["opset"] == 21
    assert onnx.load(version.folder / "model.onnx").ir_version == 10
    model = onnx.load(tmp_path / "new.onnx")
    last = model.graph.node[-1]
    model.graph.initializer.append(numpy_helper.from_array(np.ones(96, np.float32), "scale"))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("RMSNormalization", [last.input[0], "scale"], ["normal"]))
    model.graph.node[-1].input[0] = "normal"
    onnx.save(model, tmp_path / "newer.onnx")
    with pytest.raises(errors.UnsuitableModel, match="RMSNormalization"):
        install("wav2lip", repository, tmp_path / "newer.onnx")


def served_is_outdated(repository: Path) -> bool:
    served = served_version(repository, "lip_sync")
    assert served is not None
    return is_outdated(served, repository)


def go_to_program(monkeypatch: pytest.MonkeyPatch, name: str, loud_level_db: float) -> None:
    """Pretend to be a version of the program with other code, which makes mouth-warp with this parameter."""
    monkeypatch.setattr("orchestrator.models.install.builder_digest", lambda: name)
    monkeypatch.setattr("orchestrator.models.packs.LOUD_LEVEL_DBFS", loud_level_db)


def test_model_of_other_code_is_outdated_unless_an_operator_chose_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_to_program(monkeypatch, "older code", -20.0)
    first = install("mouth-warp", repository)
    assert not served_is_outdated(repository)
    go_to_program(monkeypatch, "newer code", -21.0)
    assert served_is_outdated(repository)
    assert install("mouth-warp", repository).number == 2
    assert not served_is_outdated(repository)
    use_installed(repository, first)
    assert not served_is_outdated(repository), "who went back on purpose is left alone"
    use_installed(repository, find_version(repository, "mouth-warp/2"))
    go_to_program(monkeypatch, "older code", -20.0)
    assert served_is_outdated(repository), "so is a newer one's model where the program itself went back"


def test_program_that_goes_back_and_forth_takes_its_own_models_along(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_to_program(monkeypatch, "a", -20.0)
    install("mouth-warp", repository)
    for name, level, number in (("b", -21.0, 2), ("a", -20.0, 1), ("b", -21.0, 2)):
        go_to_program(monkeypatch, name, level)
        assert served_is_outdated(repository)
        assert install("mouth-warp", repository).number == number
        assert not served_is_outdated(repository)


def test_model_that_other_code_makes_the_same_stays_the_version_it_is(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_to_program(monkeypatch, "older code", -20.0)
    version = install("mouth-warp", repository)
    stamp = (version.folder / "model.onnx").stat().st_mtime_ns
    go_to_program(monkeypatch, "newer code", -20.0)
    assert served_is_outdated(repository), "that is known only once it is made"
    assert install("mouth-warp", repository).number == 1
    assert not served_is_outdated(repository)
    assert [(other.number, other.is_served) for other in read_versions(repository, "lip_sync")] == [(1, True)]
    assert (version.folder / "model.onnx").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("changed", ["mouth_warp.py", "mouth_motion.npz"])
def test_builder_is_another_one_where_code_or_weights_changed(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = Path(shutil.copytree(Path(install_module.__file__).parent, tmp_path / "models"))
    monkeypatch.setattr(install_module, "__file__", str(code / "install.py"))
    digest = builder_digest.__wrapped__
    before = digest()
    assert digest() == before
    with (code / changed).open("ab") as file:
        file.write(b"#")
    assert digest() != before


def test_operators_own_model_is_never_outdated(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("wav2lip", repository, small_wav2lip(tmp_path / "w.onnx"))
    monkeypatch.setattr("orchestrator.models.install.builder_digest", lambda: "newer code")
    assert not served_is_outdated(repository)


def test_install_missing_makes_outdated_models_anew_and_says_so(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_MODEL_REPOSITORY", str(repository))
    command = ["models", "install", "--missing", "mouth-warp"]
    run = CliRunner()
    go_to_program(monkeypatch, "older code", -20.0)
    assert "Made anew" not in run.invoke(app, command).stdout
    go_to_program(monkeypatch, "newer code", -21.0)
    assert "Outdated" in run.invoke(app, ["models", "list"]).stdout
    assert "mouth-warp/1" in outdated_models(repository)
    renewed = run.invoke(app, command).stdout
    assert "mouth-warp/2" in renewed and "Made anew: mouth-warp/1 is of another version" in renewed
    assert run.invoke(app, command).stdout == ""
    assert "Outdated" not in run.invoke(app, ["models", "list"]).stdout
    assert outdated_models(repository) == ""
    go_to_program(monkeypatch, "newest code", -21.0)
    assert "Unchanged: this version of the program makes mouth-warp/2 as it is." in run.invoke(app, command).stdout
    install("wav2lip", repository, small_wav2lip(tmp_path / "w.onnx"))
    assert run.invoke(app, command).stdout == "", "an operator's own model stays"


@pytest.mark.parametrize(("pack", "save"), [("xseg", save_xseg), ("face-parser", save_face_parser)])
def test_occluder_of_either_family_becomes_a_mask_of_the_face(pack: str, save: Callable[..., Path], repository: Path, tmp_path: Path) -> None:
    """With a batch baked in at 1, as some exports have it; the wrong pack refuses the file."""
    file = save(tmp_path / "occluder.onnx", batch=1)
    version = install(pack, repository, file)
    (output,) = version.card["outputs"]
    assert (version.role, output["name"], output["dims"]) == ("face_occluder", "mask", [256, 256] if pack == "xseg" else [512, 512])
    assert version.card["batching"] == "items together" and version.card["proof"]["reference_difference"] < 2e-3
    with pytest.raises(errors.UnsuitableModel, match="does not fit the pack"):
        install("face-parser" if pack == "xseg" else "xseg", repository, file)


@pytest.mark.parametrize(("pack", "size", "name", "batch"), [("arcface", 512, "input.1", "None"), ("sface", 128, "data", 1)])
def test_embedder_of_either_family_gives_directions(pack: str, size: int, name: str, batch: int | str, repository: Path, tmp_path: Path) -> None:
    version = install(pack, repository, save_embedder(tmp_path / "embedder.onnx", size, name, batch))
    (output,) = version.card["outputs"]
    assert (version.role, output["name"], output["dims"]) == ("face_embedder", "embedding", [size])
    assert version.card["batching"] == "items together" and version.card["proof"]["reference_difference"] < 2e-3
    with pytest.raises(errors.UnsuitableModel, match="does not fit the pack"):
        install("sface" if pack == "arcface" else "arcface", repository, tmp_path / "embedder.onnx")


def test_vocal_network_of_either_size_is_proven_and_another_is_refused(repository: Path, tmp_path: Path) -> None:
    """The published shape of 3072 bins is served in the integration tests; here the smaller one, and what is no vocal network."""
    version = install("mdx", repository, save_mdx(tmp_path / "mdx.onnx", 2048, 6144, frames=16, batch=1))
    assert version.card["inputs"][0]["dims"] == [15 * 1024 + 6144] and version.card["outputs"][0]["dims"] == [15 * 1024 - 6144]
    assert version.card["batching"] == "items together" and version.card["proof"]["reference_difference"] < 1e-5
    for bins, frames, reason in ((1024, 16, "FLOAT"), (2048, 6, "too short")):
        with pytest.raises(errors.UnsuitableModel, match=reason):
            install("mdx", repository, save_mdx(tmp_path / "other.onnx", bins, 6144, frames=frames))
