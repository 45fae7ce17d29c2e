"""What ffmpeg is needed for. Where it is not on the PATH, the tests of real files skip."""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from skydraft.audio import ffmpeg
from skydraft.audio.read import read_clip
from skydraft.errors import AudioError
from tests.audio.sounds import tone, write
from tests.waiting import PATIENCE_S

FFMPEG = shutil.which("ffmpeg")
with_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not on the PATH")


def refusal(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_clip(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def convert(source: Path, target: Path, *options: str) -> Path:
    assert FFMPEG is not None
    command = [FFMPEG, "-nostdin", "-v", "error", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    return target


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write(tmp_path / "tone.wav", tone(2.0))


def made_up_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a program with the name of ffmpeg on the PATH; gives a file that only ffmpeg reads."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    path = tmp_path / "memo.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    return path


@with_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "mp4", "mov", "webm", "mka", "aac", "wma", "avi", "caf", "w64", "3gp"])
def test_what_people_have_is_read(tmp_path: Path, sound: Path, suffix: str) -> None:
    clip = read_clip(convert(sound, tmp_path / f"a.{suffix}", *(["-c:a", "aac"] if suffix == "3gp" else [])))
    assert clip.name == f"a.{suffix}"
    assert clip.duration_s == pytest.approx(2.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(clip.samples[8_000:24_000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert clip.notes == () or "resampled from" in clip.notes[0]


@with_ffmpeg
def test_a_voice_memo_of_an_old_phone_is_read(tmp_path: Path) -> None:
    frames = random.Random(2)
    data = b"".join(b"\x3c" + bytes(frames.randrange(256) for _ in range(31)) for _ in range(100))  # 12.2 kbit/s
    (tmp_path / "a.amr").write_bytes(b"#!AMR\n" + data)
    clip = read_clip(tmp_path / "a.amr")
    assert clip.duration_s == pytest.approx(2.0, abs=0.01)
    assert clip.notes[0] == "resampled from 8,000 Hz to 16,000 Hz"


@with_ffmpeg
def test_the_sound_of_a_film_is_read_and_one_without_is_refused(tmp_path: Path, sound: Path) -> None:
    pictures = ("-f", "lavfi", "-i", "testsrc=duration=2:size=64x64")
    film = convert(sound, tmp_path / "film.mp4", *pictures, "-shortest")
    assert read_clip(film).duration_s == pytest.approx(2.0, abs=0.15)
    text = refusal(convert(film, tmp_path / "mute.mp4", "-an", "-c:v", "copy"))
    assert "is MPEG-4 audio (m4a, mp4) and cannot be decoded (it has no sound)" in text


@with_ffmpeg
def test_of_a_film_with_surround_sound_the_centre_is_taken(tmp_path: Path, sound: Path) -> None:
    surround = convert(sound, tmp_path / "a.m4a", "-af", "pan=5.1|FC=0.5*c0|FL=0.1*c0")
    clip = read_clip(surround)
    assert clip.notes == ("of 6 channels the centre was taken",)
    assert np.abs(clip.samples[8_000:24_000]).max() == pytest.approx(0.25, abs=0.02)


@with_ffmpeg
@pytest.mark.parametrize(
    "words",
    [
        "ffconcat version 1.0\nfile tone.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ntone.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_a_list_of_other_files_is_not_followed(tmp_path: Path, sound: Path, words: str) -> None:
    path = tmp_path / "a.m4a"
    path.write_text(words)
    assert re.search(
        "is not a sound file that can be read .*ffmpeg: (it is a list of other files or an address|Invalid)",
        refusal(path),
    )


@with_ffmpeg
def test_no_address_in_a_file_is_asked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        path = tmp_path / "a.m4a"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.aac\n")
        refusal(path)
        with pytest.raises(BlockingIOError):
            server.accept()


@with_ffmpeg
def test_a_file_that_is_cut_off_or_is_none_is_refused(tmp_path: Path, sound: Path) -> None:
    whole = convert(sound, tmp_path / "a.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    assert "is MPEG-4 audio (m4a, mp4) and cannot be decoded (moov atom not found): it is damaged" in refusal(
        tmp_path / "cut.m4a"
    )
    (tmp_path / "text.m4a").write_text("The children are talking by the door.\n" * 50)
    assert "is not a sound file that can be read (it begins with b'The children'" in refusal(tmp_path / "text.m4a")


@with_ffmpeg
def test_a_damaged_file_is_read_with_a_note_or_refused(tmp_path: Path, sound: Path) -> None:
    whole = bytearray(convert(sound, tmp_path / "a.aac").read_bytes())
    for place in range(2_000, len(whole), 1_003):
        whole[place] ^= 0x5A
    (tmp_path / "b.aac").write_bytes(whole)
    notes = read_clip(tmp_path / "b.aac").notes
    assert notes[-1].startswith("ffmpeg reports: ")
    assert notes[-1].endswith("; parts may be missing")


@with_ffmpeg
def test_a_name_that_looks_like_an_option_or_a_protocol_is_a_name(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = convert(sound, tmp_path / "a.m4a").read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("-i.m4a", "concat:a.m4a", "http:a.m4a", "a b;touch x.m4a", "\u00e9\n.m4a"):
        Path(name).write_bytes(made)
        assert read_clip(name).duration_s == pytest.approx(2.0, abs=0.15)
    assert not Path("x.m4a").exists()


def test_a_decoder_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_up_ffmpeg(tmp_path, monkeypatch, "exec sleep 1000000")
    monkeypatch.setattr(ffmpeg, "LIMIT_S", 0.1)
    assert "took ffmpeg more than 0.1 s and was given up" in refusal(path)
    assert psutil.Process().children() == []


def test_a_decoder_without_end_is_stopped_however_much_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = r"printf '.snd\000\000\000\030\377\377\377\377\000\000\000\006\000\000\076\200\000\000\000\001'"
    path = made_up_ffmpeg(tmp_path, monkeypatch, f"yes error >&2 & {header}; exec cat /dev/zero")
    monkeypatch.setattr("skydraft.audio.decode.MAX_DURATION_S", 30.0)
    assert "has more sound than its header says, above the limit of 30 s" in refusal(path)
    assert psutil.Process().children() == []


def test_a_decoder_that_fails_after_some_sound_is_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = r"printf '.snd\000\000\000\030\377\377\377\377\000\000\000\006\000\000\076\200\000\000\000\001'"
    path = made_up_ffmpeg(tmp_path, monkeypatch, f"{header}; head -c 64000 /dev/zero; exit 69")
    assert "cannot be decoded (it ended without a word)" in refusal(path)


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_AS"), reason="this system has no limit of memory for a process")
def test_a_decoder_has_a_limit_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_up_ffmpeg(tmp_path, monkeypatch, "exec sleep 1000000")
    decoding = ffmpeg.Decoding(str(tmp_path / "bin" / "ffmpeg"), path, 1.0)
    with decoding:
        (child,) = psutil.Process().children()
        assert child.rlimit(psutil.RLIMIT_AS) == (ffmpeg.MAX_MEMORY_BYTES, ffmpeg.MAX_MEMORY_BYTES)
        child.kill()
    assert decoding.has_failed
    assert not decoding.is_late


def test_what_ffmpeg_says_is_told_without_its_ornaments(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    decoding = ffmpeg.Decoding("ffmpeg", path, 1.0)
    assert decoding.complaint == ""
    decoding._words = f"\n[mov,mp4 @ 0x55] moov atom not found\nfile:{path}: Invalid data\n".encode()
    assert decoding.complaint == "moov atom not found"
    decoding._words = f"file:{path}: Invalid data.\n".encode()
    assert decoding.complaint == "Invalid data"
