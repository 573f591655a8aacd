"""What the audio baselines share: the parameters of a log-mel spectrogram, and waveforms of one length."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from benchkit import Backbone, MelSettings, fingerprint, param


@dataclass(frozen=True)
class MelParams:
    """Raises ValueError where they make no spectrogram."""

    sample_rate: int = param(32_000, low=1000, high=384_000, help="of the waveform, in Hz")
    seconds: float = param(5.0, low=0.1, high=600.0, help="longer recordings are cut, shorter ones padded with silence")
    n_mels: int = param(64, low=1, high=1024, help="mel bands")
    window_ms: float = param(25.0, low=1.0, high=1000.0, help="length of the Hann window")
    hop_ms: float = param(10.0, low=0.1, high=1000.0, help="from one frame to the next")
    fmin: float = param(50.0, low=0.0, help="lower end of the lowest band, in Hz")
    fmax: float | None = param(None, low=0.0, help="upper end of the highest band, in Hz; none: half the sample rate")
    mel: Literal["htk", "slaney"] = param("slaney", help="the mel scale")
    top_db: float | None = param(80.0, low=1.0, help="floor of the levels below the recording's loudest; none: -100 dB")

    def __post_init__(self) -> None:
        if self.fmax is not None and self.fmax * 2 == self.sample_rate:
            object.__setattr__(self, "fmax", None)  # the same thing, so the same name
        _ = self.settings

    @property
    def settings(self) -> MelSettings:
        """The spectrogram, in samples."""
        return MelSettings(
            sample_rate=self.sample_rate,
            n_mels=self.n_mels,
            window=round(self.window_ms * self.sample_rate / 1000),
            hop=round(self.hop_ms * self.sample_rate / 1000),
            fmin=self.fmin,
            fmax=self.fmax,
            scale=self.mel,
        )

    @property
    def samples(self) -> int:
        """Length of every waveform: `seconds`, and up to one hop more so that frames cover all of it."""
        return self.settings.whole_frames(round(self.seconds * self.sample_rate))


class WaveBackbone(Backbone):
    """A backbone over waveforms of one length.

    Of a longer recording only the first `seconds` count. A shorter one is padded with zeros at its end, and statistics
    over time take the padding for what it is, silence: they see how short the recording was. (ESC-50, too, pads its
    short clips with silence.)
    """

    modalities = ("audio",)
    params: MelParams

    def __init__(self, params: MelParams | None = None) -> None:
        super().__init__(params)
        self.sample_rate = self.params.sample_rate
        self.seconds = self.params.seconds

    def preprocess(self, raw: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " fixed"]:
        wanted = round(self.params.seconds * self.params.sample_rate)
        wave = np.zeros(self.params.samples, np.float32)
        wave[: min(len(raw), wanted)] = raw[:wanted]
        return wave

    def fingerprint(self) -> str:
        return fingerprint(type(self).__name__)  # no weights
