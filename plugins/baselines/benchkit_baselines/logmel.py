"""logmel: how loud each band is, how much that varies, how fast. The honest floor of every audio backbone."""

import numpy as np
from jaxtyping import Float32

from benchkit import Encoded, log_mel
from benchkit_baselines.waves import MelParams, WaveBackbone


class LogMel(WaveBackbone):
    """Four statistics over time of the level (dB) of each mel band: mean, standard deviation, maximum, and mean
    absolute change from one frame to the next. D = 4 * n_mels, in this order.

    tokens: the frames themselves, [B, F, n_mels], in dB.
    """

    Params = MelParams

    @property
    def dim(self) -> int:
        return 4 * self.params.n_mels

    def encode(self, batch: Float32[np.ndarray, "B samples"], *, tokens: bool = False) -> Encoded:
        level_bfm = log_mel(batch, self.params.settings, top_db=self.params.top_db)
        change_bfm = np.abs(np.diff(level_bfm, axis=1, append=level_bfm[:, -1:]))
        statistics = (level_bfm.mean(axis=1), level_bfm.std(axis=1), level_bfm.max(axis=1), change_bfm.mean(axis=1))
        return Encoded(np.concatenate(statistics, axis=1), level_bfm if tokens else None)
