"""A recording while it is read: what its file says that it holds is what comes out, exactly, or a MediaError says why.

libsndfile's decoders take what they find. So the container's own word is held against what lies in the file (before
anything is decoded) and against what was decoded (afterwards), and no decoder is trusted to jump to a sample unless it
gives there, to the bit, what it gives on the way from the beginning.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit.errors import MediaError, require
from benchkit.machine.names import on_disk
from benchkit.machine.trouble import OF_THE_MACHINE
from benchkit.media.channels import Channel, listened
from benchkit.media.containers import mpeg, ogg
from benchkit.media.containers.chunks import extent, tag_size
from benchkit.media.containers.extent import Extent
from benchkit.media.containers.view import Mended, View

BLOCK = 1 << 20
"""Samples, of all channels, that are decoded at a time."""
SLOWEST, FASTEST = 100, 10_000_000
"""Hz. Recorders of whales go down to 200 Hz; beyond these a header is damaged, and resampling would fill the memory."""
EXACT = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "ALAC_")
"""Subtypes of which libsndfile finds any sample exactly. Of MPEG it does not (the filterbank's state), of Vorbis and
Opus only where some sound before is decoded as well, and not on the last page; others cannot be sought in."""
WARM = 1.0
"""Seconds decoded before a part of an Ogg stream: enough for Opus (RFC 7845: 80 ms) and Vorbis (one block)."""
STATED = ("MP3", "SDS")
"""Formats of which libsndfile gives the length that their header states, not of what is there."""


class OpenAudio:
    """An opened recording. Use it in a `with`. Raises MediaError, here and wherever it is read.

    rate: in Hz. channels: how many. frames: samples of each channel; None where the file does not say.
    verified: whether the file says so much of its length that a missing end would be seen.
    """

    def __init__(self, source: Path | bytes) -> None:
        require("soundfile", "benchkit-core[audio]")
        self.source = on_disk(source) if isinstance(source, Path) else source
        self.name = name(source)
        self._counted: int | None = None
        self._file: Any = None
        try:
            self._view = View(self.source)
        except OSError as e:
            if e.errno in OF_THE_MACHINE:
                raise
            raise self._error(_why(source, e)) from e
        try:
            self._open_and_check()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> "OpenAudio":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()
        self._view.__exit__(kind, error, tb)

    @property
    def seconds(self) -> float:
        """How long it is; decodes all of it where the file does not say."""
        if self.frames is not None:
            return self.frames / self.rate
        if self._counted is None:
            self._counted = sum(len(block) for block in self.blocks())
        return self._counted / self.rate

    def blocks(
        self, start: int = 0, frames: int | None = None, size: int | None = None, channel: Channel | None = None
    ) -> Iterator[Float32[np.ndarray, "T channels"]]:
        """Samples from `start`, so many or to the end, a block of at most `size` at a time; fewer come only where the
        recording ends.

        channel: only what of the channels is listened to; all of them for "loudest" and None.
        """
        size = size or max(1, BLOCK // self.channels)
        if self.frames is not None:
            left = max(0, self.frames - start)
            frames = left if frames is None else min(frames, left)
        if frames == 0:
            return
        self._check_part(start, frames)
        at = self._go_to(start)
        while at < start:  # exact where that cannot be had by a jump
            got = len(self._read(min(size, start - at)))
            if not got:
                self._ended(at)
                return
            at += got
        stop = None if frames is None else start + frames
        while stop is None or at < stop:
            block = self._read(size if stop is None else min(size, stop - at))
            if not len(block):
                break
            at += len(block)
            yield block if channel is None else listened(block, channel)
        if stop is None or at < stop:
            self._ended(at)

    # ---------------------------------------------------------------------------------------------------------- inside

    def _open_and_check(self) -> None:
        if not self._view.size:
            raise self._error("it is empty")
        found: Extent = self._guard(lambda: extent(self._view))
        self._mend = found.mend
        try:
            self._open()
        except MediaError:
            if not found.whole:
                self._refuse(found)
            raise
        f = self._file
        self.rate: int = f.samplerate
        self.channels: int = f.channels
        self.verified = found.verified
        if not SLOWEST <= self.rate <= FASTEST:
            raise MediaError(
                f"{self.name} states a sample rate of {self.rate:,} Hz, and {SLOWEST} to {FASTEST:,} Hz are taken: "
                "its header is damaged, or is to be written anew with the right rate"
            )
        self.frames: int | None = f.frames
        if self._kind == "OGG" and found.unit == "frames" and found.whole:
            self._check_ogg(found.held)
        if self._kind == "MP3" and not mpeg.stated_frames(self._view, tag_size(self._view)):
            self.frames, self.verified = None, False
        if self._kind == "FLAC" and found.stated is None:
            self.frames = None
        if self._kind == "HTK":  # libsndfile itself refuses one that is not as long as its header says
            self.verified = True
        if not found.whole:
            self._refuse(found)

    def _refuse(self, found: Extent) -> None:
        """Raises MediaError: what the container says of itself is not so."""
        stated, held, why = found.stated, found.held, found.why
        clock = self._clock if self._file and found.unit == "frames" else None
        if stated is None:
            after = f"; it holds {_decimals(held / clock, 0.0)} s" if clock and held else ""
            raise MediaError(f"{self.name} is cut off: {why}{after}")
        if not self._file:
            raise MediaError(f"{self.name} is cut off: it holds {held / stated:.1%} of the {found.unit} that it states")
        if clock:
            holds, states = held / clock, stated / clock
        elif self._kind in STATED:
            states = self._file.frames / self.rate
            holds = states * held / stated
        else:  # libsndfile counts what is there
            holds = (self._file.frames if held else 0) / self.rate
            states = holds * stated / max(1, held)
        if why:
            raise MediaError(f"{self.name} is not what it says: it states {_decimals(states, 0.0)} s, and {why}")
        if not states:
            raise MediaError(f"{self.name} is cut off: it states {stated:,} {found.unit} of sound, and holds none")
        raise MediaError(
            f"{self.name} is cut off: it states {_decimals(states, holds)} s, and holds {_decimals(holds, states)} s"
        )

    @property
    def _clock(self) -> int:
        """Positions in an Ogg stream of Opus are at 48 kHz, whatever the rate (RFC 7845, section 4)."""
        return 48_000 if self._subtype == "OPUS" else int(self._file.samplerate)

    def _check_ogg(self, last: int) -> None:
        """A damaged page at the beginning makes libsndfile believe that the stream begins behind it."""
        skipped = self._skipped()
        expected = (last - skipped) * self.rate // self._clock
        if self.frames is not None and self.frames < expected - 1:  # or it was cut out of a longer one, and is whole
            why = self._guard(lambda: ogg.damaged(self._view, 0, last, last))
            if why:
                raise MediaError(f"{self.name} is damaged: {why}")

    def _skipped(self) -> int:
        """Samples at the beginning of an Opus stream that are not sound, at 48 kHz (RFC 7845, section 5.1)."""
        if self._subtype != "OPUS":
            return 0
        at = self._view.read(0, 512).find(b"OpusHead")
        return self._view.number(at + 10, 2) if at >= 0 else 0

    def _check_part(self, start: int, frames: int | None) -> None:
        """Raises MediaError where a part of an Ogg stream has damaged pages, which the decoder leaves out."""
        if self._kind != "OGG" or self.frames is None:
            return
        ratio, skipped = self._clock / self.rate, self._skipped()
        stop = self.frames if frames is None else start + frames
        begin = max(0, int((start - self.rate * WARM) * ratio))
        total = int(self.frames * ratio) + skipped
        why = self._guard(lambda: ogg.damaged(self._view, begin, int(stop * ratio) + skipped, total))
        if why:
            raise MediaError(f"{self.name} is damaged: {why}")

    def _open(self) -> None:
        self._close()
        source: Any = io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source
        if self._mend:
            source = Mended(self._view, *self._mend)
        self._file, self._at = self._guard(lambda: _stream()(source)), 0
        self._kind, self._subtype = str(self._file.format), str(self._file.subtype)

    def _close(self) -> None:
        if self._file is not None:
            with suppress(Exception):
                self._file.close()
            self._file = None

    def _go_to(self, start: int) -> int:
        """Moves to `start`, or to somewhere before it from where all is exact."""
        if self._kind == "FLAC" or self._subtype.startswith(EXACT):
            target = start
        elif self._kind == "OGG" and self.frames is not None:
            target = max(0, min(start, self._last_page()) - round(WARM * self.rate))
        else:
            target = 0
        if target <= self._at <= start:
            return self._at
        if target == 0:
            self._open()
            return 0
        self._guard(lambda: self._file.seek(target))
        self._at = target
        return target

    def _last_page(self) -> int:
        """Where the last page of an Ogg stream begins, in frames: libsndfile takes it to begin later than it does."""
        first = ogg.page(self._view, 0)
        last = first and ogg.last_page(self._view, self._view.size, first.stream)
        before = first and last and ogg.last_page(self._view, last.at, first.stream)
        if not before:
            return 0
        return max(0, (before.position - self._skipped()) * self.rate // self._clock)

    def _read(self, frames: int) -> Float32[np.ndarray, "T channels"]:
        block = self._guard(lambda: self._file.read(frames, dtype="float32", always_2d=True))
        self._at += len(block)
        return block

    def _ended(self, at: int) -> None:
        """Raises MediaError where the sound ended before the file says that it does."""
        if self.frames is not None and at < self.frames:
            raise MediaError(
                f"{self.name} is damaged: it states {_decimals(self.frames / self.rate, at / self.rate)} s, and "
                f"{_decimals(at / self.rate, self.frames / self.rate)} s decode"
            )
        if self._kind == "MP3" and self.frames is None:
            least = mpeg.least_samples(self._view, tag_size(self._view))
            if at < least:
                raise MediaError(
                    f"{self.name} is damaged: its bytes are those of {_decimals(least / self.rate, 0.0)} s, and "
                    f"{_decimals(at / self.rate, 0.0)} s decode"
                )

    def _guard(self, function: Any) -> Any:
        """What the function gives. Whatever a decoder raises is a MediaError with the file's name."""
        try:
            return function()
        except (MediaError, MemoryError):
            raise
        except Exception as e:
            if isinstance(e, OSError) and e.errno in OF_THE_MACHINE:
                raise
            self._check_machine()
            raise self._error(_why(self.source, e)) from e

    def _check_machine(self) -> None:
        """Raises OSError where no file can be opened at all, of which libsndfile says no more than "System error"."""
        try:
            View(self.source).__exit__(None, None, None)
        except OSError as e:
            if e.errno in OF_THE_MACHINE:
                raise

    def _error(self, why: str) -> MediaError:
        return MediaError(f"{self.name} does not decode as audio: {why}")


@cache
def _stream() -> Any:
    import soundfile

    class Stream(soundfile.SoundFile):
        """Does not seek after each read: it is where it is."""

        def seekable(self) -> bool:
            return False

    return Stream


def name(source: object) -> str:
    return f"'{source}'" if isinstance(source, Path) else "a medium held in memory"


def _decimals(value: float, other: float) -> str:
    """Seconds with as many decimals, at least one, as show that they are not the other ones."""
    return next((a for n in range(1, 7) if (a := f"{value:.{n}f}") != f"{other:.{n}f}"), f"{value:.1f}")


def _why(source: Path | bytes, error: Exception) -> str:
    """libsndfile says "System error" of a file that is not there, and "File does not exist" of one that makes no
    sense as what its name says."""
    if isinstance(source, Path):
        if not source.exists():
            return "there is no such file"
        if not source.is_file():
            return "it is no file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(getattr(error, "error_string", error)) or type(error).__name__
    return "what it holds is no sound that libsndfile knows" if "does not exist" in said else said
