"""Makes mel_librosa.npz: mel filterbanks and spectrograms by librosa, which benchkit does not depend on.

In an environment of its own:  uv pip install librosa==0.11.0 && python tests/frontends/make_mel_librosa.py
"""

from pathlib import Path

import librosa
import numpy as np

RATE, FFT, HOP, BANDS = 16_000, 256, 100, 20


def main() -> None:
    made: dict[str, np.ndarray] = {}
    for scale in ("htk", "slaney"):
        for norm in (None, "slaney"):
            made[f"bank_{scale}_{'area' if norm else 'height'}"] = librosa.filters.mel(
                sr=RATE, n_fft=FFT, n_mels=BANDS, fmin=40.0, fmax=7000.0, htk=scale == "htk", norm=norm
            ).T
    t = np.arange(2048) / RATE  # a rising tone that fades, then a click, then silence
    wave = np.sin(2 * np.pi * (200.0 * t + 12_000.0 * t**2)) * np.exp(-20.0 * t)
    wave[1500] += 0.5
    wave[1600:] = 0.0
    made["wave"] = wave.astype(np.float32)
    for window in (256, 200):
        power = librosa.feature.melspectrogram(
            y=made["wave"], sr=RATE, n_fft=FFT, win_length=window, hop_length=HOP, center=False, n_mels=BANDS,
            fmin=40.0, fmax=7000.0, htk=False, norm=None, power=2.0,
        )  # fmt: skip
        made[f"power_{window}"] = power.T
        made[f"db_{window}"] = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=60.0).T
    np.savez_compressed(Path(__file__).parent / "mel_librosa.npz", **made)


main()
