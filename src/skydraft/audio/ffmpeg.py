"""What libsndfile does not read, decoded by ffmpeg where it is on the PATH.

A decoder of a hundred formats is no friend of hostile files, and some formats are lists of other files and addresses,
which ffmpeg follows. So it runs in a process of its own, without a shell; it may open no address and only containers
of sound and film; it is given one thread, bounds on memory, on time and on what it may write, and no terminal. What it
decodes comes through a pipe as the sound file of one known kind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

LIMIT_S = 600.0  # an hour of sound takes a slow machine a minute or two
MAX_MEMORY_BYTES = 2**31
MAX_BLOCK_BYTES = 2**28
MAX_WORDS_BYTES = 4096  # of what ffmpeg says of a file
STREAM_FORMAT = "AU"  # can be read from a pipe: its header may leave the length open

# Containers of sound and film; none that names other files (concat, hls, dash, sdp) or devices.
CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,latm,loas,matroska,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,qcp,rm,tak,tta,voc,w64,wav,wv,xwma"
)
IN_PLAIN_WORDS = {
    "matches no streams": "it has no sound",
    "not on whitelist": "it is a list of other files or an address, which is not followed",
}


def find_ffmpeg() -> str | None:
    """Where ffmpeg is; None: not on the PATH."""
    return shutil.which("ffmpeg")


class Decoding:
    """One file that ffmpeg decodes, as a context: gives the reading end of a pipe with an AU file of 32-bit floats.

    After the context:

    complaint: what ffmpeg said first of the file, without its names of parts and paths; empty: nothing.
    has_failed: whether it ended with an error, or before its time.
    is_late: whether it was stopped because it took longer than LIMIT_S.

    Args:
        max_duration_s: that it decodes of the file.
    """

    def __init__(self, ffmpeg: str, path: Path, max_duration_s: float) -> None:
        self._command = _command(ffmpeg, path, max_duration_s)
        self._path = path
        self._words = b""
        self.has_failed = False
        self.is_late = False

    def __enter__(self) -> int:
        environment = {name: value for name, value in os.environ.items() if name != "FFREPORT"}  # it would write a log
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdout is not None, "it was given a pipe"
        assert self._process.stderr is not None, "and another"
        _limit_memory(self._process.pid)
        self._listening = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listening.start()
        self._timer = threading.Timer(LIMIT_S, self._stop_late)
        self._timer.daemon = True
        self._timer.start()
        return self._process.stdout.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process.stdout is not None, "it was given a pipe"
        process.stdout.close()  # it stops when it writes on, if it has not ended
        if error is not None:
            self._stop()
        self.has_failed = process.wait() != 0
        self._timer.cancel()
        self._stop()  # where ffmpeg is a script, what it has started may go on
        self._listening.join()

    @property
    def complaint(self) -> str:
        lines = self._words.decode(errors="replace").splitlines()
        first = next((line.strip() for line in lines if line.strip()), "")
        first = re.sub(r"^\[[^]]*\] *", "", first).replace(f"file:{self._path}: ", "")
        plain = next((words for sign, words in IN_PLAIN_WORDS.items() if sign in first), None)
        return plain or first.rstrip(".")

    def _listen(self, stream: IO[bytes]) -> None:
        """Keep the first words and throw the others away, so that ffmpeg never waits to say them."""
        with stream:
            while words := stream.read1(2**16):  # type: ignore[attr-defined]  # a buffered pipe has it
                self._words = (self._words + words)[:MAX_WORDS_BYTES]

    def _stop_late(self) -> None:
        self.is_late = True
        self._stop()

    def _stop(self) -> None:
        """End the process and those that it has started, if they have not ended."""
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()


def _command(ffmpeg: str, path: Path, max_duration_s: float) -> list[str]:
    """Options of the input stand before it. Source: ffmpeg's manual, 5.4, and ffmpeg-formats, 3."""
    of_all = ["-nostdin", "-hide_banner", "-v", "error", "-max_alloc", str(MAX_BLOCK_BYTES)]
    of_input = ["-threads", "1", "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    of_output = ["-map", "0:a:0", "-threads", "1", "-c:a", "pcm_f32be", "-f", STREAM_FORMAT.lower(), "pipe:1"]
    duration = ["-t", f"{max_duration_s:g}"]
    return [ffmpeg, *of_all, *of_input, *duration, "-i", f"file:{path}", *of_output]


def _limit_memory(pid: int) -> None:
    """Where the system can; a process that has ended already needs no limit."""
    with suppress(AttributeError, psutil.Error, OSError):
        psutil.Process(pid).rlimit(psutil.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
