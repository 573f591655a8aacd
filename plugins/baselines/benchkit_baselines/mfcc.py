"""mfcc: the classical features of environmental sound, after the baseline of ESC-50 (Piczak 2015)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from benchkit import Encoded, MelSettings, log_mel, param
from benchkit_baselines.waves import MelParams, WaveBackbone


@dataclass(frozen=True)
class MFCCParams(MelParams):
    n_mfcc: int = param(20, low=1, high=1024, help="cepstral coefficients, the level counted as one")
    delta: int = param(2, low=1, high=50, help="frames on each side that a slope is fitted over")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc={self.n_mfcc} coefficients cannot be made of n_mels={self.n_mels} bands")


class MFCC(WaveBackbone):
    """Statistics over time of mel-frequency cepstral coefficients and the zero-crossing rate.

    Coefficients: the orthonormal DCT-II over the bands' levels in dB (Davis and Mermelstein 1980, equation 1), where
    coefficient 0 is scaled to the mean level, so that it does not outweigh all others together. Slopes: the regression
    over 2 * delta + 1 frames (The HTK Book, equation 5.16), repeated for the slope of the slope.

    Features, in this order: mean and standard deviation of the coefficients; standard deviation of their slopes and of
    the slopes' slopes (their means only say how the recording ends); mean and standard deviation of the zero crossings
    in a millisecond. D = 4 * n_mfcc + 2. Piczak's baseline (ACM Multimedia 2015) has the coefficients and
    the zero-crossing rate, with mean and standard deviation, and no slopes.

    tokens: the coefficients of each frame, [B, F, n_mfcc].
    """

    Params = MFCCParams
    params: MFCCParams

    @property
    def dim(self) -> int:
        return 4 * self.params.n_mfcc + 2

    def encode(self, batch: Float32[np.ndarray, "B samples"], *, tokens: bool = False) -> Encoded:
        p = self.params
        mfcc_bfk = cepstrum(log_mel(batch, p.settings, top_db=p.top_db), p.n_mfcc)
        slope_bfk = slopes(mfcc_bfk, p.delta)
        crossings_bf1 = crossings(batch, p.settings)[:, :, None]
        statistics = (
            *(mfcc_bfk.mean(axis=1), mfcc_bfk.std(axis=1)),
            *(slope_bfk.std(axis=1), slopes(slope_bfk, p.delta).std(axis=1)),
            *(crossings_bf1.mean(axis=1), crossings_bf1.std(axis=1)),
        )
        return Encoded(np.concatenate(statistics, axis=1), mfcc_bfk if tokens else None)


def cepstrum(level: Float32[np.ndarray, "B F M"], n: int) -> Float32[np.ndarray, "B F {n}"]:
    """The first `n` coefficients of the orthonormal DCT-II over the bands; coefficient 0 is the mean over the bands."""
    from scipy.fft import dct

    coefficients = np.ascontiguousarray(dct(level, axis=-1, norm="ortho")[:, :, :n])
    coefficients[:, :, 0] /= np.float32(np.sqrt(level.shape[-1]))
    return coefficients


def slopes(frames: Float32[np.ndarray, "B F K"], reach: int) -> Float32[np.ndarray, "B F K"]:
    """Slope at each frame, with a frame as the unit of time, of the line fitted to the frames up to `reach` before and
    after it; the first and the last frame are repeated beyond the ends."""
    count = frames.shape[1]
    padded = np.pad(frames, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(frames)
    for n in range(1, reach + 1):
        total += np.float32(n) * (padded[:, reach + n :][:, :count] - padded[:, reach - n :][:, :count])
    return total / np.float32(2 * sum(n * n for n in range(1, reach + 1)))


def crossings(waves: Float32[np.ndarray, "B T"], settings: MelSettings) -> Float32[np.ndarray, "B F"]:
    """Changes of sign in a millisecond, in each frame."""
    negative = np.signbit(waves)
    changes = np.cumsum(negative[:, 1:] != negative[:, :-1], axis=1, dtype=np.int32)
    before = np.pad(changes, ((0, 0), (1, 0)))  # changes up to each sample
    starts = np.arange(settings.frames(waves.shape[1])) * settings.hop
    inside = before[:, starts + settings.window - 1] - before[:, starts]
    return (inside / (settings.window / settings.sample_rate * 1000.0)).astype(np.float32)
