"""Train the network that tells from a mel window how lips are in its middle: a convolution over time in four layers, as small as it is good."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import fftconvolve, resample
from torch import Tensor, nn
from torch.nn.functional import interpolate

from orchestrator.models.mouth_motion import WEIGHTS
from preprocess.mel import COLUMNS_PER_S, MAX_ABS, N_MELS, SAMPLE_RATE_HZ, UNITS_PER_DB, WINDOW_COLUMNS
from tests.motion.lips import Phone, correlation, lip_motion
from tests.motion.speakers import Floats, Utterance, conversation, features, frame_times

_CHANNELS = 48
_PIECE_COLUMNS = 128
"""Columns learned from at once; a piece has a window's more."""

_CONVERSATIONS = 110
_COPIES = 3
"""How often an utterance is learned from: once as it was said, and in other rooms at another speed."""

_EPOCHS = 16
_BATCH = 64
_RATE = 2e-3
_SPREAD_WEIGHT = 0.5
"""Weight of the spread's error, of the opening's."""

_STRETCH = 0.12
"""How much larger a head may be than the speaker's, as a share."""

_CLOSED_WEIGHT = 2.0
"""How much more an error counts where lips meet: they are seen to."""


def elsewhere(said: Utterance, seed: int) -> Utterance:
    """Return an utterance as of a larger or smaller head, which speaks faster or slower, in a room, with noise."""
    rng = np.random.default_rng(seed)
    count = round(len(said.waveform) * rng.uniform(0.85, 1.16))
    waveform = resample(said.waveform, count)
    if rng.random() < 0.5:
        echo_count = round(rng.uniform(0.08, 0.5) * SAMPLE_RATE_HZ)
        echo = rng.standard_normal(echo_count) * np.exp(-np.linspace(0, 6.9, echo_count)) * rng.uniform(0.05, 0.5) / np.sqrt(echo_count / 14)
        echo[0] = 1.0
        waveform = fftconvolve(waveform, echo)[:count]
    if rng.random() < 0.6:
        spectrum = np.fft.rfft(rng.standard_normal(count))
        noise = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** rng.uniform(0, 0.6), count)
        waveform = waveform + noise * (waveform.std() / noise.std() * 10 ** (-rng.uniform(8, 40) / 20))
    scale = count / len(said.waveform)
    phones = [Phone(start * scale, end * scale, ipa) for start, end, ipa in said.phones]
    return Utterance(said.speaker, np.asarray(waveform, np.float32), phones)


def pieces(said: Utterance) -> Iterator[tuple[Floats, Floats]]:
    """Yield the utterance in (80, 143) features and what the lips do in each whole window of them: (3, 128) opening, spread, and
    1 where they are known."""
    mel = features(said.waveform)
    motion = lip_motion(said.phones, frame_times(mel.shape[1]))
    lips = np.stack([motion.opening, motion.spread, motion.known]).astype(np.float32)
    before, behind = WINDOW_COLUMNS // 2, WINDOW_COLUMNS // 2 - 1
    count = -(-mel.shape[1] // _PIECE_COLUMNS)
    mel = np.pad(mel, ((0, 0), (before, behind + count * _PIECE_COLUMNS - mel.shape[1])), constant_values=-MAX_ABS)
    lips = np.pad(lips, ((0, 0), (0, count * _PIECE_COLUMNS - lips.shape[1])))
    for start in range(0, count * _PIECE_COLUMNS, _PIECE_COLUMNS):
        yield mel[:, start : start + _PIECE_COLUMNS + before + behind], lips[:, start : start + _PIECE_COLUMNS]


def lessons(seed: int) -> list[tuple[NDArray[np.float16], Floats]]:
    """Return the pieces of one conversation."""
    learned = []
    for index, said in enumerate(conversation(seed)):
        copies = [said, *(elsewhere(said, seed * 10_000 + index * 10 + copy) for copy in range(1, _COPIES))]
        learned += [(mel.astype(np.float16), lips) for copy in copies for mel, lips in pieces(copy)]
    return learned


def network() -> nn.Sequential:
    """Return the untrained network: (n, 80, T) features / 4 become (n, 2, T - 15), whose hyperbolic tangents are
    2 * opening - 1 and spread."""
    return nn.Sequential(
        *(nn.Conv1d(N_MELS, _CHANNELS, 3), nn.ReLU(), nn.Dropout1d(0.1)),
        *(nn.Conv1d(_CHANNELS, _CHANNELS, 3), nn.ReLU(), nn.Dropout1d(0.05)),
        *(nn.Conv1d(_CHANNELS, _CHANNELS, 3), nn.ReLU(), nn.Dropout(0.15)),
        nn.Conv1d(_CHANNELS, 2, WINDOW_COLUMNS - 6),
    )


def train(mel: Tensor, lips: Tensor) -> nn.Sequential:
    """Return the network that has learned the pieces (n, 80, 143) float16 and (n, 3, 128), see `pieces`."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_EPOCHS * (len(mel) // _BATCH), pct_start=0.1)
    for epoch in range(_EPOCHS):
        total = 0.0
        order = torch.randperm(len(mel))[: len(mel) // _BATCH * _BATCH].view(-1, _BATCH)
        for batch in order:
            heard = torch.tanh(model(_through_a_microphone(_from_another_head(mel[batch].float())) / MAX_ABS))
            opening, spread, known = lips[batch].unbind(1)
            weight = known * (1 + _CLOSED_WEIGHT * (opening < 0.12))
            error = (weight * ((heard[:, 0] + 1) / 2 - opening) ** 2).sum() / weight.sum()
            weight = known * opening.clamp(0, 0.3)  # what lips that meet are like sideways is not seen
            loss = error + _SPREAD_WEIGHT * (weight * (heard[:, 1] - spread) ** 2).sum() / weight.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {_EPOCHS}: loss {total / len(order):.4f}", flush=True)
    return model.eval()


def _from_another_head(mel: Tensor) -> Tensor:
    """Return features (n, 80, T), most of them as from a vocal tract shorter or longer by up to `_STRETCH`, which speaks as fast."""
    count = len(mel)
    stretch = 1 + (torch.rand(count, 1) * 2 - 1) * _STRETCH * (torch.rand(count, 1) < 0.7)
    position = (torch.arange(N_MELS)[None] * stretch).clamp(0, N_MELS - 1.001)
    below = position.long()
    share = (position - below)[:, :, None]
    lower, upper = (mel.gather(1, band[:, :, None].expand(-1, -1, mel.shape[2])) for band in (below, below + 1))
    return lower * (1 - share) + upper * share


def _through_a_microphone(mel: Tensor) -> Tensor:
    """Return features (n, 80, T) as another microphone, level and line would give them."""
    count = len(mel)
    bands = torch.arange(N_MELS)[None]
    colour = interpolate(torch.randn(count, 1, 6) * 0.5, size=N_MELS, mode="linear", align_corners=True)[:, 0]
    dull = (torch.rand(count, 1) < 0.15) * torch.relu(bands - (25 + 45 * torch.rand(count, 1))) * 0.15
    narrow = (torch.rand(count, 1) < 0.1) * ((bands < 5) | (bands > 52)) * 2.5
    mel = mel + (colour - dull - narrow)[:, :, None] + torch.randn(count, 1, 1) * 0.4
    hiss = (
        torch.rand(count, 1, 1) * 3 - 4.8 + interpolate(torch.randn(count, 1, 4) * 0.4, size=N_MELS, mode="linear", align_corners=True)[:, 0, :, None]
    )
    hiss = hiss + torch.randn_like(mel) * 0.25
    return torch.logaddexp(mel * _POWER, hiss * _POWER).div(_POWER).clamp(-MAX_ABS, MAX_ABS)


_POWER = np.log(10) / 10 / UNITS_PER_DB
"""Natural logarithm of the power that one unit of a feature stands for."""


def hear(model: nn.Sequential, mel: Floats) -> tuple[Floats, Floats]:
    """Return what the network says of (80, T) features: opening and spread, (T,) each."""
    padded = np.pad(mel, ((0, 0), (WINDOW_COLUMNS // 2, WINDOW_COLUMNS // 2 - 1)), constant_values=-MAX_ABS)
    with torch.no_grad():
        opening, spread = torch.tanh(model(torch.from_numpy(padded)[None] / MAX_ABS))[0].numpy()
    return (opening + 1) / 2, spread


def scores(model: nn.Sequential, utterances: Iterable[Utterance]) -> dict[str, tuple[float, float]]:
    """Return by speaker how what is heard correlates with what the lips do: opening, and spread where they are apart."""
    by_speaker: dict[str, list[NDArray[np.float64]]] = {}
    for said in utterances:
        mel = features(said.waveform)
        lips = lip_motion(said.phones, frame_times(mel.shape[1]))
        both = np.stack([*hear(model, mel), lips.opening, lips.spread])
        by_speaker.setdefault(said.speaker.partition("+")[0], []).append(both[:, lips.known])
    result = {}
    for speaker, parts in by_speaker.items():
        both = np.concatenate(parts, axis=1)
        apart = both[2] > 0.1
        result[speaker] = (correlation(both[0], both[2]), correlation(both[1, apart], both[3, apart]))
    return result


def save(model: nn.Sequential, path: Path) -> None:
    """Write the weights as `mouth_motion` reads them: (out, in, 1, columns) and (out,), float16."""
    layers = [module for module in model if isinstance(module, nn.Conv1d)]
    arrays = {f"weights_{index}": layer.weight.detach().numpy()[:, :, None].astype(np.float16) for index, layer in enumerate(layers)}
    arrays |= {f"offsets_{index}": layer.bias.detach().numpy().astype(np.float16) for index, layer in enumerate(layers)}
    np.savez_compressed(path, **arrays)


def main() -> None:
    """Make the weights anew, and print how well sentences are heard that it did not learn from."""
    with ProcessPoolExecutor() as pool:
        learned = [piece for part in pool.map(lessons, range(_CONVERSATIONS)) for piece in part]
    print(f"{len(learned) * _PIECE_COLUMNS / COLUMNS_PER_S / 3600:.1f} h of speech", flush=True)
    mel, lips = (torch.from_numpy(np.stack(side)) for side in zip(*learned, strict=True))
    model = train(mel, lips)
    for speaker, (opening, spread) in scores(model, (said for seed in range(1_000_000, 1_000_010) for said in conversation(seed))).items():
        print(f"{speaker}: opening {opening:.3f}, spread {spread:.3f}")
    save(model, WEIGHTS)
