"""Changes to recordings that a listener would shrug off: speed, rooms, microphones, noise, telephones, codecs."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import soxr
from scipy.signal import butter, fftconvolve, sosfilt

from training.clips import SAMPLE_RATE_HZ

_AAC_DELAY = 1024  # samples that FFmpeg's encoder puts before the first


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play `factor` times as fast: rate, pitch and formants move together, as if another person spoke."""
    resampled: np.ndarray = soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ)
    return resampled.astype(np.float32)


def stretch(samples: np.ndarray, factor: float) -> np.ndarray:
    """Speak `factor` times as fast at the same pitch (WSOLA: overlap-add at the best-matching offsets)."""
    window, hop, search = 512, 256, 160
    starts = np.arange(0, len(samples) - window - 2 * search - hop, hop * factor).astype(int)
    shape = np.hanning(window).astype(np.float32)
    out = np.zeros(len(starts) * hop + window, np.float32)
    padded = np.pad(samples, (search, search + window))
    wanted = padded[search : search + window]
    for index, start in enumerate(starts):
        region = padded[start : start + window + 2 * search]
        offset = start + int(fftconvolve(region, wanted[::-1], mode="valid").argmax())
        out[index * hop : index * hop + window] += padded[offset : offset + window] * shape
        wanted = padded[offset + hop : offset + hop + window]
    return out


def add_room(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Reverberate in a synthetic room: decaying noise after a direct path, 0.15 to 0.6 s to -60 dB."""
    decay_s = generator.uniform(0.15, 0.6)
    time_s = np.arange(int(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = generator.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    tail *= 10 ** (generator.uniform(-12, -2) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    heard: np.ndarray = fftconvolve(samples, tail)[: len(samples)]
    return heard.astype(np.float32)


def add_microphone(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Colour as a laptop microphone does: rumble and treble cut, one broad resonance."""
    low_hz, high_hz = generator.uniform(60, 220), generator.uniform(4500, 7600)
    filtered = sosfilt(butter(2, [low_hz, high_hz], "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    centre_hz = generator.uniform(900, 4000)
    band = sosfilt(butter(1, [centre_hz / 1.5, centre_hz * 1.5], "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    coloured: np.ndarray = filtered + generator.uniform(-0.4, 0.8) * band
    return coloured.astype(np.float32)


def add_noise(samples: np.ndarray, snr_db: float, generator: np.random.Generator) -> np.ndarray:
    """Add coloured noise (white to brown, some of it mains hum) at `snr_db` below the recording's power."""
    spectrum = np.fft.rfft(generator.standard_normal(len(samples)))
    frequency_hz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ)
    noise = np.fft.irfft(spectrum / np.maximum(frequency_hz, 40.0) ** generator.uniform(0, 1), len(samples))
    noise /= noise.std() + 1e-9
    if generator.random() < 0.3:
        hum_hz = generator.choice([50.0, 60.0]) * generator.choice([1, 2, 3])
        noise += generator.uniform(0.2, 1.0) * np.sin(2 * np.pi * hum_hz * np.arange(len(samples)) / SAMPLE_RATE_HZ)
    active_power = np.mean(samples[np.abs(samples) > 0.05 * np.abs(samples).max()] ** 2)
    heard: np.ndarray = samples + noise / noise.std() * np.sqrt(active_power) * 10 ** (-snr_db / 20)
    return heard.astype(np.float32)


def laptop(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A person at a laptop: room, microphone, noise at 5 to 30 dB, another gain."""
    heard = add_noise(add_microphone(add_room(samples, generator), generator), generator.uniform(5, 30), generator)
    gain = 10 ** (generator.uniform(-8, 8) / 20)
    return np.clip(heard * gain, -1, 1).astype(np.float32)


def add_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """Record at another level: 16 bits, clipped at full scale."""
    louder = np.clip(samples * 10 ** (gain_db / 20), -1, 1)
    return (np.round(louder * 32767) / 32767).astype(np.float32)


def telephone(samples: np.ndarray) -> np.ndarray:
    """A telephone line: 8 kHz, 300 to 3400 Hz, 8 bits by mu-law (G.711)."""
    narrow = soxr.resample(samples, SAMPLE_RATE_HZ, 8000)
    narrow = sosfilt(butter(3, [300, 3400], "bandpass", fs=8000, output="sos"), narrow).clip(-1, 1)
    code = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    heard = soxr.resample(np.sign(code) * (256 ** np.abs(code) - 1) / 255, 8000, SAMPLE_RATE_HZ)
    return _fitted(heard, len(samples))


def opus(samples: np.ndarray, bitrate: int = 12_000) -> np.ndarray:
    """A voice message: Opus at `bitrate` bits a second."""
    return _coded(samples, "libopus", "s16", "ogg", bitrate, delay=0)


def aac(samples: np.ndarray, bitrate: int = 24_000) -> np.ndarray:
    """A phone's recorder: AAC at `bitrate` bits a second."""
    return _coded(samples, "aac", "fltp", "adts", bitrate, delay=_AAC_DELAY)


def _coded(samples: np.ndarray, codec: str, kind: str, container: str, bitrate: int, delay: int) -> np.ndarray:
    """Through FFmpeg's encoder and back."""
    stream = io.BytesIO()
    values = samples if kind == "fltp" else np.round(samples.clip(-1, 1) * 32767).astype(np.int16)
    with av.open(stream, "w", format=container) as written:
        track: Any = written.add_stream(codec, rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=bitrate)
        frame = av.AudioFrame.from_ndarray(values[None], format=kind, layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in (*track.encode(frame), *track.encode(None)):
            written.mux(packet)
    with av.open(io.BytesIO(stream.getvalue()), "r") as read:
        frames = [frame.to_ndarray()[0] for frame in read.decode(audio=0)]
        rate = read.streams.audio[0].rate
    heard = soxr.resample(np.concatenate(frames), rate, SAMPLE_RATE_HZ)
    return _fitted(heard[delay:], len(samples))


def _fitted(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples[:length], (0, max(0, length - len(samples)))).astype(np.float32)
