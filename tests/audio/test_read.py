from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skydraft.audio.read import Clip, read_clip
from skydraft.errors import AudioError
from tests.audio.sounds import RATE_HZ, pcm16, pcm_wav, tone, write
from tests.waiting import PATIENCE_S

SUFFIXES = ("wav", "flac", "ogg", "mp3", "aiff")


def refusal(path: str | Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_clip(path)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.__cause__ is None
    return text


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-23), ("FLOAT", 0), ("DOUBLE", 0)],
)
def test_wav_of_every_width_gives_the_samples_back(tmp_path: Path, subtype: str, tolerance: float) -> None:
    clip = read_clip(write(tmp_path / "a.wav", tone(), subtype=subtype))
    assert clip.samples.dtype == np.float32
    assert np.abs(clip.samples - tone()).max() <= tolerance


@pytest.mark.parametrize("file_format", ["WAVEX", "RF64"])
def test_extended_wav_headers_are_read(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone(), tone()], axis=1), RATE_HZ, format=file_format, subtype="PCM_24")
    assert np.abs(read_clip(path).samples - tone()).max() < 2**-22


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_every_container_and_rate_becomes_16_khz(tmp_path: Path, suffix: str, rate_hz: int) -> None:
    clip = read_clip(write(tmp_path / f"a.{suffix}", tone(1.0, rate_hz), rate_hz))
    assert clip.duration_s == pytest.approx(1.0, abs=1e-3)
    middle = slice(4_000, 12_000)
    assert np.abs(clip.samples[middle] - tone()[middle]).max() < 0.06  # Vorbis and MP3 lose a little
    assert f"resampled from {rate_hz:,} Hz to 16,000 Hz" in clip.notes


def test_a_16_khz_mono_file_passes_unchanged_without_a_note(tmp_path: Path) -> None:
    clip = read_clip(write(tmp_path / "speech.wav", tone(), subtype="FLOAT"))
    assert (clip.samples == tone()).all()
    assert (clip.name, clip.duration_s, clip.notes) == ("speech.wav", 1.0, ())


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(peak=0.6), tone(peak=0.2)
    clip = read_clip(write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=1e-7)
    assert clip.notes == ("2 channels averaged to one",)


def test_as_many_as_32_channels_are_read(tmp_path: Path) -> None:
    clip = read_clip(write(tmp_path / "a.wav", np.repeat(tone()[:, None], 32, axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(clip.samples, tone(), atol=1e-7)


@pytest.mark.parametrize(("suffix", "centre"), [("wav", 2), ("flac", 2), ("aiff", 2), ("ogg", 1)])
@pytest.mark.parametrize("num_channels", [5, 6, 8])
def test_of_surround_sound_the_centre_is_taken(tmp_path: Path, suffix: str, centre: int, num_channels: int) -> None:
    samples = np.repeat(tone(peak=0.05, pitch_hz=1000)[:, None], num_channels, axis=1)
    samples[:, centre] = tone()
    clip = read_clip(write(tmp_path / f"a.{suffix}", samples))
    assert clip.notes == (f"of {num_channels} channels the centre was taken",)
    assert np.abs(clip.samples - tone())[1_000:-1_000].max() < (0.05 if suffix == "ogg" else 1e-3)


def test_a_silent_centre_leaves_the_other_channels(tmp_path: Path) -> None:
    samples = np.repeat(tone()[:, None], 6, axis=1)
    samples[:, 2] = 0
    clip = read_clip(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert clip.notes == ("6 channels averaged to one",)
    np.testing.assert_allclose(clip.samples, tone() * 5 / 6, atol=1e-6)


@pytest.mark.parametrize("address", ["https://example.org/a.wav", "HTTP://x", "file:///a.wav", "s3://bucket/a.wav"])
def test_an_address_is_refused_in_words(address: str) -> None:
    assert refusal(address) == f"{address!r} is an address and not a file; download it first, and give the file"


def test_resampling_in_blocks_equals_resampling_at_once(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 3 * 44_100 + 17).astype(np.float32)  # several blocks
    clip = read_clip(write(tmp_path / "a.wav", noise, 44_100, "FLOAT"))
    at_once = soxr.resample(noise, 44_100, RATE_HZ, quality="HQ")
    np.testing.assert_allclose(clip.samples, at_once, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_decoding_in_blocks_equals_decoding_at_once(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(6.5))  # four blocks
    at_once, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(read_clip(path).samples, at_once, atol=1e-6)


def test_what_is_above_8_khz_does_not_fold_down(tmp_path: Path) -> None:
    mixed = tone(1.0, 48_000) + tone(1.0, 48_000, pitch_hz=11_000)
    clip = read_clip(write(tmp_path / "a.wav", mixed, 48_000, "FLOAT"))
    assert np.abs(clip.samples - tone())[1_000:-1_000].max() < 1e-3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.wav"
    assert refusal(path) == f"{str(path)!r} does not exist; check the path"


def test_a_path_with_a_zero_byte_is_refused() -> None:
    assert "cannot be opened" in refusal("a\0.wav") or "does not exist" in refusal("a\0.wav")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder; give a sound file, or the folder with -r" in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "is a pipe or a device" in refusal(tmp_path / "pipe.wav")


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", tone())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read every file

        def refuse(self: Path, mode: str) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be opened (Permission denied); check the path and its permissions" in refusal(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", [*SUFFIXES, "raw", "txt"])
def test_text_with_the_name_of_a_sound_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notes.{suffix}"
    path.write_text("The children are talking by the door.\n" * 50)
    assert re.search("is not a sound file|no frame of it was found", refusal(path))


def test_without_ffmpeg_a_phone_recording_is_named_and_the_way_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "memo.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    assert "is MPEG-4 audio (m4a, mp4), which needs ffmpeg, and none is on the PATH: install it" in refusal(path)


def test_a_header_without_samples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(pcm_wav(b""))
    assert "has a header but no samples" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
@pytest.mark.parametrize("part", [0.98, 0.6, 0.02])
def test_a_file_that_is_cut_off_within_a_frame_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 2 * RATE_HZ)
    path = write(tmp_path / f"a.{suffix}", noise)
    contents = path.read_bytes()
    path.write_bytes(contents[: int(part * len(contents))])
    assert re.search("cut off", refusal(path))


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_a_file_that_ends_before_its_header_says_is_read_as_far_as_it_goes_with_a_note(
    tmp_path: Path, suffix: str
) -> None:
    path = write(tmp_path / f"a.{suffix}", tone())
    whole = read_clip(path)
    path.write_bytes(path.read_bytes()[:-2_000])
    clip = read_clip(path)
    np.testing.assert_array_equal(clip.samples, whole.samples[:-1_000])
    assert re.search("its header counts 32,00[08] bytes of sound and 30,00[08] are there", clip.notes[-1])


@pytest.mark.parametrize("suffix", ["wav", "rf64", "rifx", "aiff"])
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_sound_behind_the_stated_end_is_read_with_a_note(tmp_path: Path, suffix: str, part: float) -> None:
    """A recorder that was killed leaves a length of 0, or the one of its last update."""
    path = tmp_path / "a.wav"
    container = {"rf64": "RF64", "aiff": "AIFF"}.get(suffix, "WAV")
    endian = "BIG" if suffix == "rifx" else "FILE"
    soundfile.write(path, tone(), RATE_HZ, format=container, endian=endian)
    whole = read_clip(path)
    contents = bytearray(path.read_bytes())
    name, layout, offset = {"rf64": (b"ds64", "<Q", 16), "aiff": (b"SSND", ">I", 4), "rifx": (b"data", ">I", 4)}.get(
        suffix, (b"data", "<I", 4)
    )
    struct.pack_into(layout, contents, contents.index(name) + offset, int(part * 32_000))
    path.write_bytes(contents)
    clip = read_clip(path)
    np.testing.assert_array_equal(clip.samples, whole.samples)
    assert re.search(rf"counts {int(part * 32_000):,} bytes of sound and 32,00[08] are there: all", clip.notes[-1])


@pytest.mark.parametrize("placeholder", [0xFFFFFFFF, 0x7FFFF000])
def test_a_streamed_wav_without_a_length_is_read_with_a_note(tmp_path: Path, placeholder: int) -> None:
    (tmp_path / "a.wav").write_bytes(pcm_wav(pcm16(tone()), data_bytes=placeholder))
    clip = read_clip(tmp_path / "a.wav")
    assert clip.duration_s == 1.0
    assert "its header does not say how long it is" in clip.notes[0]


def without_length_tag(path: Path, samples: np.ndarray, bitrate_mode: str) -> Path:
    """Write an MP3 whose first frame does not say how many follow."""
    soundfile.write(path, samples, RATE_HZ, bitrate_mode=bitrate_mode, compression_level=0.0)
    contents = path.read_bytes()
    tag = {"CONSTANT": b"Info", "VARIABLE": b"Xing"}[bitrate_mode]
    assert contents.count(tag) == 1
    path.write_bytes(contents.replace(tag, bytes(4)))
    return path


def test_an_mp3_without_a_length_tag_is_read_where_its_bit_rate_is_constant(tmp_path: Path) -> None:
    clip = read_clip(without_length_tag(tmp_path / "a.mp3", tone(3.0), "CONSTANT"))
    assert clip.duration_s == pytest.approx(3.0, abs=0.15)
    assert "its header does not say how long it is" in clip.notes[-1]


LOUD_THEN_QUIET = np.random.default_rng(3).uniform(-0.9, 0.9, 2 * RATE_HZ) * np.repeat([1, 1e-3], RATE_HZ)


@pytest.mark.parametrize("before", [b"", b"ID3\x04\x00\x00\x00\x00\x01\x01" + bytes(129)])
@pytest.mark.parametrize("behind", [b"", b"TAG" + b"x" * 125, b"APETAGEX" + bytes(24)])
def test_an_mp3_of_varying_bit_rate_without_a_length_tag_is_read_to_its_end(
    tmp_path: Path, before: bytes, behind: bytes
) -> None:
    """Of a file, the decoder guesses the length from the first frames, which are longer than the later ones here."""
    path = without_length_tag(tmp_path / "a.mp3", LOUD_THEN_QUIET, "VARIABLE")
    path.write_bytes(before + path.read_bytes() + behind)
    assert read_clip(path).duration_s == pytest.approx(2.0, abs=0.15)


def test_an_mp3_without_a_length_tag_that_ends_within_a_frame_is_refused(tmp_path: Path) -> None:
    path = without_length_tag(tmp_path / "a.mp3", LOUD_THEN_QUIET, "VARIABLE")
    path.write_bytes(path.read_bytes()[:-20])
    assert "no frame of it was found, or it ends within one" in refusal(path)


def test_a_stream_that_is_refused_half_way_leaves_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skydraft.audio.decode.MAX_DURATION_S", 3.0)
    path = without_length_tag(tmp_path / "a.mp3", tone(60.0), "CONSTANT")
    assert path.stat().st_size > 2**20  # more than a pipe holds
    assert "has more sound than its header says, above the limit of 3 s" in refusal(path)
    assert "skydraft-audio" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_counted(tmp_path: Path, value: float) -> None:
    samples = np.stack([tone(3.0), tone(3.0)], axis=1)
    samples[100:103, 0] = samples[45_000, 1] = value
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert "4 of its 96,000 samples are NaN or infinite" in refusal(path)


@pytest.mark.parametrize("peak", [0.0, 3e-5, 0.0009])
def test_silence_is_refused_with_its_level(tmp_path: Path, peak: float) -> None:
    text = refusal(write(tmp_path / "a.wav", tone(peak=peak), subtype="FLOAT"))
    level = -120 if not peak else round(20 * np.log10(peak))
    assert f"is silent: its peak is {level} dBFS and the limit -60" in text


def test_a_quiet_voice_above_the_limit_is_read(tmp_path: Path) -> None:
    assert read_clip(write(tmp_path / "a.wav", tone(peak=0.0011), subtype="FLOAT")).duration_s == 1.0


@pytest.mark.parametrize(
    "samples",
    [
        np.stack([tone(), -tone()], axis=1),
        np.full(RATE_HZ, 0.5, np.float32),
    ],
    ids=["channels that cancel each other", "a constant"],
)
def test_silence_from_loud_samples_is_told_apart(tmp_path: Path, samples: np.ndarray) -> None:
    text = refusal(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert "is silent" in text
    assert "though single samples reach -6" in text


def test_a_clip_below_a_tenth_of_a_second_is_refused(tmp_path: Path) -> None:
    assert "lasts 0.099 s and at least 0.1 s are needed" in refusal(write(tmp_path / "a.wav", tone(0.099)))
    assert read_clip(write(tmp_path / "b.wav", tone(0.1))).duration_s == 0.1


@pytest.mark.parametrize("rate_hz", [4_000, 384_000])
def test_the_lowest_and_the_highest_rate_are_read(tmp_path: Path, rate_hz: int) -> None:
    assert read_clip(write(tmp_path / "a.wav", tone(1.0, rate_hz), rate_hz)).duration_s == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("rate_hz", [1, 3_999, 384_001, 2_000_000_000])
def test_absurd_rates_are_refused(tmp_path: Path, rate_hz: int) -> None:
    (tmp_path / "a.wav").write_bytes(pcm_wav(pcm16(tone()), rate_hz=rate_hz))
    assert f"has a sample rate of {rate_hz:,} Hz in its header" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rate_hz": 0}, "cannot be decoded"),
        ({"num_channels": 0}, "cannot be decoded"),
        ({"num_channels": 33}, "has 33 channels; at most 32 are supported"),
        ({"num_channels": 65_535}, "cannot be decoded"),
        ({"bits": 0}, "cannot be decoded"),
        ({"encoding": 0}, "cannot be decoded"),
    ],
)
def test_absurd_headers_are_refused(tmp_path: Path, fields: dict[str, int], reason: str) -> None:
    (tmp_path / "a.wav").write_bytes(pcm_wav(pcm16(tone()), **fields))
    assert reason in refusal(tmp_path / "a.wav")


def test_a_recording_above_an_hour_is_refused_by_its_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", np.zeros(4_000 * 3_601, np.int16), 4_000)
    assert "lasts 3,601 s by its header, above the limit of 3,600 s" in refusal(path)


def test_a_stream_above_an_hour_is_refused_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skydraft.audio.read.UNKNOWN_FRAMES", 0)  # as if the header said nothing
    path = write(tmp_path / "a.flac", np.zeros(4_000 * 3_601, np.int16), 4_000)
    assert "has more sound than its header says, above the limit of 3,600 s" in refusal(path)


def test_a_flac_header_that_lies_about_its_length_costs_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone())
    contents = bytearray(path.read_bytes())
    num_frames = 3_599 * RATE_HZ  # 230 MB as float32
    packed = int.from_bytes(contents[18:26], "big") >> 36 << 36 | num_frames
    contents[18:26] = packed.to_bytes(8, "big")
    path.write_bytes(contents)
    tracemalloc.start()
    assert re.search("cut off", refusal(path))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4_000_000


@pytest.mark.parametrize("peak", [17, 20_000])
def test_integers_stored_as_floats_are_refused(tmp_path: Path, peak: int) -> None:
    text = refusal(write(tmp_path / "a.wav", tone(peak=peak), subtype="FLOAT"))
    assert f"samples up to {peak:,} where full scale is 1" in text


@pytest.mark.parametrize("peak", [1.5, 15.9])
def test_samples_a_little_above_full_scale_are_kept_and_noted(tmp_path: Path, peak: float) -> None:
    clip = read_clip(write(tmp_path / "a.wav", tone(peak=peak), subtype="FLOAT"))
    assert clip.notes == (f"peak {peak:.2f} is above full scale",)
    assert np.abs(clip.samples).max() == pytest.approx(peak, abs=1e-2)


def test_numbers_near_the_end_of_float32_are_refused_without_a_warning(tmp_path: Path) -> None:
    samples = np.full((RATE_HZ, 2), 3.4e38, np.float32) * np.array([1, -1], np.float32)
    assert "full scale" in refusal(write(tmp_path / "a.wav", samples, subtype="FLOAT"))


def test_a_name_that_no_text_can_hold_is_read_and_quoted(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has names that are not valid text")
    path = tmp_path / os.fsdecode(b"\xff\n.wav")
    write(tmp_path / "a.wav", tone()).rename(path)
    assert read_clip(path).duration_s == 1.0
    path.write_bytes(b"text")
    refusal(path).encode("utf-8")


def test_a_sound_with_the_name_of_headerless_audio_is_to_be_renamed(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone()).rename(tmp_path / "a.raw")
    assert "rename it to .wav" in refusal(tmp_path / "a.raw")


def test_the_decoder_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.mp3", tone(2.0))
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    refusal(path)
    path.write_bytes(b"ID3\x04\0\0\0\0\0\0" + b"\xff\xfb\x90\x64 junk" * 9_999)
    refusal(path)
    print("standard error is back", file=sys.stderr)
    assert capfd.readouterr() == ("", "standard error is back\n")


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = write(tmp_path / "a.wav", tone())
    assert refusal(path) == (
        f"reading audio needs the package {package}, which is not installed: pip install soundfile soxr"
    )


def test_audio_packages_are_not_imported_before_a_clip_is_read() -> None:
    code = "import sys, skydraft.audio.read, skydraft.audio.windows; print({'soundfile', 'soxr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == "set()\n"


def clip_or_refusal(path: Path) -> None:
    try:
        clip = read_clip(path)
    except AudioError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert isinstance(clip, Clip)
        assert np.isfinite(clip.samples).all()


FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FUZZ
@given(
    st.sampled_from([b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"fLaC", b"OggS", b"ID3\x04\0\0\0\0\0\x10", b""]),
    st.binary(max_size=300),
    st.sampled_from(["a.wav", "a.mp3"]),
)
def test_arbitrary_bytes_give_a_clip_or_a_sentence(tmp_path: Path, magic: bytes, rest: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(magic + rest)
    clip_or_refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_give_a_clip_or_a_sentence(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(4)
    path = write(tmp_path / f"a.{suffix}", rng.uniform(-0.5, 0.5, RATE_HZ // 4))
    contents = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(40):
        damaged = contents.copy()
        places = rng.integers(0, min(len(damaged), rng.choice([60, 10_000])), rng.integers(1, 6))
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        clip_or_refusal(path)
