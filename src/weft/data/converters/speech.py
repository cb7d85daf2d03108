"""Speech with its transcript, translation or caption: LibriSpeech, AISHELL-1, Common Voice, FLEURS, CoVoST 2, Clotho.

Sources: openslr.org/12 (LibriSpeech's README.TXT), openslr.org/33 (AISHELL-1), README of common-voice/cv-dataset, card
and loader of google/fleurs, get_covost_splits.py and README.md of facebookresearch/covost, zenodo.org/record/4783391
(Clotho). All from documentation, not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from weft.conversation import WeftError
from weft.data.converters.base import BadEntry, Job, Read, Sample, audio, sample, task, transcript
from weft.data.converters.jsonfile import Entry, lines
from weft.data.converters.tables import cell, halves, table

_BLANKS = re.compile(r"\s+")


def librispeech(job: Job) -> Read:
    """LibriSpeech; from documentation, not verified.

    ``<speaker>/<chapter>/<speaker>-<chapter>.trans.txt`` holds a line ``<id> TEXT`` for each ``<id>.flac`` beside it.
    PATH is any folder above. The text is in capitals and stays so.
    """

    def make(e: Entry) -> Iterator[Sample]:
        name, said = halves(e.value)
        clip = job.find(str(job.inside(Path(e.file)).parent / f"{name}.flac"), what="audio")
        yield transcript(name, clip, said, job.language or "en")

    for file in job.files("*.trans.txt"):
        yield from job.each(lines(file.value), make)


def aishell(job: Job) -> Read:
    """AISHELL-1; from documentation, not verified.

    ``transcript/aishell_transcript_v0.8.txt`` holds a line ``<id> TEXT`` for each ``wav/<split>/<speaker>/<id>.wav``,
    the speaker being characters 7 to 11 of the id (``BAC009S0002W0122``: ``S0002``). PATH is ``data_aishell``. The text
    has blanks between words; ``--original-cleanup`` takes them out, as Qwen-Audio's scorer does with Chinese.
    """
    file = job.path / "transcript" / "aishell_transcript_v0.8.txt" if job.path.is_dir() else job.path
    root = job.media or file.parent.parent / "wav"
    splits = ("train", "dev", "test")

    def make(e: Entry) -> Iterator[Sample]:
        name, said = halves(e.value)
        found = [split for split in splits if job.exists(str(root / split / name[6:11] / f"{name}.wav"))]
        if not found:
            raise BadEntry(
                f"no such file: {name}.wav (looked in {root}/<split>/{name[6:11]}; --media names another folder wav)",
                reason="media file is missing",
                field="audio",
            )
        if job.split is not None and job.split not in found:
            job.notes["utterances of other splits"] += 1
            return
        clip = str(root / (job.split or found[0]) / name[6:11] / f"{name}.wav")
        yield transcript(name, clip, _BLANKS.sub("", said) if job.clean else said, job.language or "zh")

    yield from job.each(lines(file), make)


def common_voice(job: Job) -> Read:
    """Common Voice; from documentation, not verified.

    A table with ``path``, ``sentence`` and ``locale`` (``train.tsv``; a folder and ``--split train``); recordings are
    in ``clips`` beside it. Nothing is quoted there but sentences with a quotation mark, whose marks are doubled: these
    are read as meant. The language is that of ``locale``, its region left out.
    """
    if job.path.is_dir() and job.split is None:
        raise WeftError(f"{job.path}: is a folder: name a table in it (train.tsv), or give --split train")
    file = job.path / f"{job.split}.tsv" if job.path.is_dir() else job.path

    def make(e: Entry) -> Iterator[Sample]:
        row = e.value
        name, said = cell(row, "path"), cell(row, "sentence")
        if said.startswith('"') and said.endswith('"') and '""' in said[1:-1]:
            said = said[1:-1].replace('""', '"')
        name = name if Path(name).suffix else f"{name}.mp3"
        language = job.language or row.get("locale", "").partition("-")[0] or None
        yield transcript(Path(name).stem, job.find(f"clips/{name}", name, what="audio"), said, language)

    yield from job.each(table(file), make)


def fleurs(job: Job) -> Read:
    """FLEURS; from documentation, not verified.

    ``<language>/<split>.tsv``, which names no columns: id, file, the text as written, the text in lower case without
    punctuation (``--original-cleanup``), characters, samples, gender. PATH is a table, or a folder of them (``--split``
    for one); recordings are in ``audio/<split>`` beside it. The language is the first part of the folder's name
    (``en_us``).
    """
    head = ("id", "file", "raw_transcription", "transcription", "characters", "samples", "gender")

    def make(e: Entry) -> Iterator[Sample]:
        row, file = e.value, job.inside(Path(e.file))
        clip = job.find(
            *(str(file.parent / p / row["file"]) for p in (f"audio/{file.stem}", file.stem, "")), what="audio"
        )
        said = row["transcription" if job.clean else "raw_transcription"]
        language = job.language or Path(e.file).resolve().parent.name.partition("_")[0]
        yield transcript(f"{file.stem}-{Path(row['file']).stem}", clip, said, language)

    for file in job.files(f"{job.split or '*'}.tsv"):
        yield from job.each(table(file.value, head=head), make)


def covost(job: Job) -> Read:
    """CoVoST 2; from documentation, not verified.

    ``covost_v2.<source>_<target>.<split>.tsv`` as get_covost_splits.py writes it (``path``, ``sentence``,
    ``translation``, ``client_id``; no quoting, ``\\`` escapes), or the released ``covost_v2.<source>_<target>.tsv``
    (``path``, ``translation``, ``split``; a ``train`` split has ``train_covost`` too). ``--media`` is Common Voice's
    folder ``clips``, which may also stand beside the table. ``--task transcribe`` writes ``sentence``, for which a
    released file needs ``--annotations validated.tsv``. Languages are read from the file's name, their region left out
    (``zh-CN``: ``zh``).
    """
    named = re.search(r"\.([a-zA-Z]+)(?:-\w+)?_([a-zA-Z]+)(?:-\w+)?\.", job.path.name)
    source, target = job.language or (named and named[1].lower()), job.to or (named and named[2].lower())
    if not source or not target:
        raise WeftError(f"{job.path}: its name has no languages (covost_v2.fr_en.train.tsv): give --language and --to")
    sentences: dict[str, str] = {}
    wanted = job.task or "translate"
    if wanted == "transcribe" and job.annotations is not None:
        sentences = job.table(
            table(job.annotations, escape="\\"), lambda row: (cell(row, "path"), cell(row, "sentence"))
        )

    def make(e: Entry) -> Iterator[Sample]:
        row = e.value
        if job.split is not None and "split" in row:
            taken = {job.split, f"{job.split}_covost"} if job.split == "train" else {job.split}
            if cell(row, "split") not in taken:
                job.notes["rows of other splits"] += 1
                return
        name = cell(row, "path")
        file = name if Path(name).suffix else f"{name}.mp3"
        clip = job.find(file, f"clips/{file}", what="audio")
        if wanted == "transcribe":
            said = sentences.get(name) if sentences else cell(row, "sentence")
            if said is None:
                raise BadEntry(f"{name} is not in {job.annotations}", reason="no transcript", field="path")
            yield transcript(Path(name).stem, clip, said, source)
        else:
            asked = [audio(clip), task("translate", language=source, to=target)]
            yield sample(Path(name).stem, asked, cell(row, "translation"))

    yield from job.each(table(job.path, escape="\\"), make)


def clotho(job: Job) -> Read:
    """Clotho; from documentation, not verified.

    ``clotho_captions_<split>.csv``: ``file_name``, ``caption_1`` to ``caption_5``; one sample for each caption, whose
    id is the file and the caption's number. ``--media`` is the folder of that split's recordings.
    """

    def make(e: Entry) -> Iterator[Sample]:
        name = cell(e.value, "file_name")
        clip = job.find(name, what="audio")
        keys = sorted(k for k in e.value if re.fullmatch(r"caption_\d+", k))
        if not keys:
            raise BadEntry("has no column caption_1", field="caption_1")
        for key in keys:
            asked = [audio(clip), task("caption", language="en", style="clotho")]
            yield sample(f"{name}#{key.removeprefix('caption_')}", asked, cell(e.value, key))

    yield from job.each(table(job.path, separator=","), make)
