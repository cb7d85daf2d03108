"""Speech that a toolkit lists: NeMo's and Lhotse's manifests, Kaldi's and ESPnet's data folders.

Sources: NVIDIA-NeMo/NeMo, docs "Datasets" and nemo/collections/common/parts/preprocessing/manifest.py;
lhotse-speech/lhotse 1.33, lhotse/cut/mono.py, supervision.py and audio/; kaldi-asr.org, "Data preparation"; ESPnet's
egs2/TEMPLATE/README.md. A recording of which an utterance is a part is cut (`Job.stretch`), and times count from the
cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.data.converters.base import (
    SOUNDS,
    WHOLE,
    BadEntry,
    Job,
    Read,
    Sample,
    audio,
    get,
    identity,
    sample,
    task,
    transcript,
)
from weft.data.converters.jsonfile import Entry, entries, lines
from weft.data.converters.tables import halves
from weft.data.converters.timed import Span, code, timed
from weft.data.converters.timelines import SILENCE

_NUMBER = (int, float)
_READS = re.compile(r"(?:flac(?: -\w+)*|cat) (\S+) *\|")  # commands that give what lies in a file, as it is


def nemo(job: Job) -> Read:
    """NeMo's manifests; from documentation, not verified.

    A line is ``{"audio_filepath", "duration", "text"}``, with ``offset`` a part of its file; paths are relative to the
    manifest. ``source_lang`` and ``target_lang`` that differ (or ``--task translate``) make it a translation. Without
    ``text`` it is a request. Text with times as Canary writes them (``<|12|>``) is a bad entry.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry = e.value
        clip = job.find(get(entry, "audio_filepath"), what="audio")
        start, length = entry.get("offset") or 0.0, entry.get("duration")
        name = Path(clip).stem if "offset" not in entry else f"{Path(clip).stem}-{e.line}"
        clip = job.stretch(name, clip, float(start), None if length is None else start + length)
        said = entry["answer"] if "answer" in entry else entry.get("text")
        if isinstance(said, str) and re.search(r"<\|\d+\|>", said):
            raise BadEntry("has times in a form weft does not read (<|12|>)", reason="times in another form")
        source = job.language or entry.get("source_lang") or entry.get("lang")
        target = entry.get("target_lang") or source
        if job.task == "translate" or job.task is None and target != source:
            if not source or not target:
                raise BadEntry("has no source_lang and target_lang", reason="no language")
            yield sample(name, [audio(clip), task("translate", language=source, to=target)], said)
        else:
            yield transcript(name, clip, said, source)

    yield from job.each(entries(job.path), make)


def lhotse(job: Job) -> Read:
    """Lhotse's cuts, or supervisions and recordings; verified on files of lhotse.

    PATH is a manifest (``.jsonl``, ``.jsonl.gz``), or a folder with ``*cuts*`` or ``*supervisions*``. Supervisions need
    the recordings: ``--annotations``, or the file of the same name with ``recordings``. One sample a cut. A cut's
    supervisions count from its start, their ``word`` alignments from that of the recording (seen in 1.33). Bad entries
    are what Lhotse would compute when it loads (mixed cuts, changed speed), and a cut in the middle of a supervision.
    """
    files = [job.path]
    if job.path.is_dir():
        found = (sorted(job.path.rglob(f"*{kind}*.jsonl*")) for kind in ("cuts", "supervisions"))
        files = next((f for f in found if f), [])
        if not files:
            raise WeftError(f"{job.path}: holds no *cuts*.jsonl or *supervisions*.jsonl: name a manifest")

    recordings: dict[str, Any] = {}

    def make(e: Entry) -> Iterator[Sample]:
        value = e.value
        if isinstance(value, dict) and "recording_id" in value and "supervisions" not in value:
            number = identity(value, "recording_id")
            if number not in recordings:
                raise BadEntry(f"{number} is not among the recordings (--annotations names them)", field="recording_id")
            value = {**value, "supervisions": [{**value, "start": 0.0}], "recording": recordings[number]}
            for key in ("text", "alignment", "language"):
                e.value.get(key)  # read below, of the copy
        yield _cut(job, value)

    for file in files:
        beside = job.annotations or file.with_name(file.name.replace("supervisions", "recordings"))
        if beside != file and beside.is_file():
            recordings = dict(job.pairs(entries(beside), lambda v: (identity(v, "id"), v), count=False))
        yield from job.each(entries(file), make)


def _cut(job: Job, cut: Any) -> Sample:
    if (kind := cut.get("type", "MonoCut")) in ("MixedCut", "PaddingCut"):
        raise BadEntry(f"is a {kind}, which is made when it is loaded: save its sound first", reason="mixed cuts")
    recording, start, length = get(cut, "recording", dict), get(cut, "start", _NUMBER), get(cut, "duration", _NUMBER)
    changes = {get(t, "name") for t in recording.get("transforms") or []} - {"Resample"}
    if changes:
        raise BadEntry(f"is changed when it is loaded ({', '.join(sorted(changes))})", reason="changed when loaded")
    (source, *others) = get(recording, "sources", list)
    if others or get(source, "type") != "file":
        raise BadEntry(
            f"a recording of {1 + len(others)} sources ({source['type']}): weft reads one file", field="sources"
        )
    name, clip = identity(cut, "id"), job.find(get(source, "source"), what="audio")
    wanted, channels = cut.get("channel", 0), source.get("channels") or [0]
    channel = None if len(channels) == 1 or wanted == channels else wanted
    if isinstance(channel, list):
        raise BadEntry(f"is of some channels ({wanted} of {channels}): weft takes one or all", field="channel")
    said = sorted(get(cut, "supervisions", list), key=lambda s: get(s, "start", _NUMBER))
    for s in said:
        if s["start"] < -WHOLE or s["start"] + get(s, "duration", _NUMBER) > length + WHOLE:
            raise BadEntry("ends in the middle of a supervision, so its text is not whole", reason="cut supervision")
    language = job.language or code(next((s.get("language") for s in said if s.get("language")), None))
    place = job.stretch(name, clip, start, start + length, channel)
    shift = 0.0 if place == clip else start
    aligned = [(s.get("alignment") or {}).get("word") for s in said]
    if aligned and all(aligned):
        words = [Span(w[1] - shift, w[1] + w[2] - shift, w[0]) for each in aligned for w in each or []]
        return timed(name, place, [w for w in words if w.text and w.text not in SILENCE], language)
    if any(not s.get("text") for s in said):
        raise BadEntry("has a supervision without text", reason="no answer")
    return transcript(name, place, " ".join(s["text"].strip() for s in said) if said else None, language)


def kaldi(job: Job) -> Read:
    """Kaldi's and ESPnet's data folders; verified on a folder that lhotse wrote.

    ``wav.scp`` names the recordings, ``segments`` (if it is there) the part of each that is an utterance, ``text`` what
    is said; without ``text`` there are requests. ``utt2lang`` tells the language. Paths that are not absolute start
    from the folder, or from ``--media``. Commands (``sph2pipe ... |``) are not run, and but for ``flac -c -d F |`` are
    a bad entry; so are places in an archive (``F.ark:13``).
    """
    folder = job.path
    if not (folder / "wav.scp").is_file():
        raise WeftError(f"{folder}: holds no wav.scp: name a data folder (data/train)")
    for file in sorted(folder.iterdir()):
        if file.name not in ("wav.scp", "segments", "text", "utt2lang") and file.suffix not in SOUNDS:
            job.notes[f'file "{file.name}" is not used'] += 1
    texts, languages = (
        job.table(lines(folder / name), halves) if (folder / name).is_file() else {} for name in ("text", "utt2lang")
    )
    recordings, segments = job.table(lines(folder / "wav.scp"), halves), folder / "segments"
    untold = set(texts)

    def make(e: Entry) -> Iterator[Sample]:
        name, rest = halves(e.value)
        untold.discard(name)
        parts = rest.split() if segments.is_file() else [name, "0", "-1"]
        if len(parts) != 3:
            raise BadEntry(f"has {len(parts) + 1} fields, and a segment four: utterance, recording, start, end")
        if texts and name not in texts:
            raise BadEntry(f"{name} is not in {folder / 'text'}", reason="no answer")
        if parts[0] not in recordings:
            raise BadEntry(f"{parts[0]} is not in {folder / 'wav.scp'}", reason="media file is missing")
        try:
            start, end = float(parts[1]), float(parts[2])
        except ValueError:
            raise BadEntry(f"start and end are numbers of seconds, these are {parts[1]} and {parts[2]}") from None
        clip = job.stretch(name, _recorded(job, recordings[parts[0]]), start, None if end < 0 else end)
        yield transcript(name, clip, texts.get(name), job.language or languages.get(name))

    yield from job.each(lines(segments if segments.is_file() else folder / "wav.scp"), make)
    if untold:
        job.notes["texts without a recording"] += len(untold)


def _recorded(job: Job, said: str) -> str:
    command = _READS.fullmatch(said)
    if said.endswith("|") and not command:
        raise BadEntry(f"is a command, and weft runs none: {said[:80]}", reason="recording from a command")
    if re.search(r"\.ark:\d+$", said):
        raise BadEntry(f"lies in an archive: copy it out first: {said[:80]}", reason="recording in an archive")
    return job.find(command[1] if command else said, what="audio")
