"""Other projects' data as weft samples: one reader a layout, one file a family.

    report = convert("llava", "llava_instruct_150k.json", "train.jsonl", media="coco/train2017")

Every sample is checked against the sample format (its media must be there, boxes inside their picture) before it is
written; the file appears whole or not at all. What does not fit is an error, or with ``on_bad="skip"`` is left out and
counted by reason. Memory does not grow with the data, but for the id tables of layouts that are joined from two files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from weft.conversation import Box, Conversation, SampleError, Text, WeftError, iter_samples, parse_sample, write_samples
from weft.conversation.foreign import command, layout_at
from weft.conversation.grounding import end_problem, last_words, without_area
from weft.conversation.tasks import guess
from weft.data.converters.base import NO_ANSWER, BadEntry, Found, Job, Read
from weft.data.converters.captions import coco_captions, textcaps
from weft.data.converters.chats import llama_factory, llava, openai
from weft.data.converters.detection import coco, voc, yolo
from weft.data.converters.flickr import flickr30k
from weft.data.converters.labelers import cvat, label_studio, labelme
from weft.data.converters.manifests import kaldi, lhotse, nemo
from weft.data.converters.questions import aokvqa, gqa, ocrvqa, vqa
from weft.data.converters.recognised import subtitles, whisper
from weft.data.converters.regions import DETECTED
from weft.data.converters.rows import ROW_TASKS, folder, parquet
from weft.data.converters.shards import webdataset
from weft.data.converters.speech import aishell, clotho, common_voice, covost, fleurs, librispeech
from weft.data.converters.swift import ms_swift
from weft.data.converters.textgrid import mfa
from weft.data.converters.timed import TIMED
from weft.data.converters.timelines import audacity, ctm, elan, rttm, stm
from weft.data.converters.vision import minigpt_refcoco, refcoco, visual_genome
from weft.data.converters.voices import llasm, qwen_audio

EXAMPLES = 5  # bad entries a report keeps
BAD_BOXES = {"outside its image": "box outside its picture", "has no area": "box without area"}


class Converter(NamedTuple):
    """``verified``: on which real files, "" where only documentation was at hand. ``takes``: options beside media."""

    read: Callable[[Job], Read]
    help: str
    verified: str = ""
    takes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


_REGIONS = ("refer", "identify", "both")

CONVERTERS: dict[str, Converter] = {
    "minigpt-refcoco": Converter(
        minigpt_refcoco,
        "RefCOCO, RefCOCO+, RefCOCOg as MiniGPT-4's repository has them (refcoco_testA.json)",
        "head of refcoco_testA.json",
        ("clean", "clip_boxes"),
        _REGIONS,
    ),
    "refcoco": Converter(
        refcoco,
        "the original RefCOCO family: refs as JSON, and instances.json",
        takes=("annotations", "split", "clean", "clip_boxes"),
        tasks=_REGIONS,
    ),
    "visual-genome": Converter(
        visual_genome,
        "Visual Genome regions: region_descriptions.json, and image_data.json beside it",
        takes=("annotations", "clean", "clip_boxes", "max_area"),
        tasks=_REGIONS,
    ),
    "flickr30k": Converter(
        flickr30k,
        "Flickr30k Entities: the folder with Sentences and Annotations",
        takes=("split", "clip_boxes"),
        tasks=("grounded_caption", "detection", "caption"),
    ),
    "coco": Converter(
        coco,
        "COCO's instances: instances_train2017.json",
        "files of supervision and datumaro",
        ("clip_boxes",),
        DETECTED,
    ),
    "voc": Converter(
        voc,
        "Pascal VOC's objects: the folder with Annotations, or its XML files",
        "files of supervision and datumaro",
        ("split", "clip_boxes"),
        DETECTED,
    ),
    "yolo": Converter(
        yolo,
        "YOLO's labels: data.yaml, or a folder with classes.txt",
        "files of supervision and datumaro",
        ("split", "clip_boxes"),
        DETECTED,
    ),
    "labelme": Converter(labelme, "LabelMe's JSON files", "files of labelme", ("clip_boxes",), DETECTED),
    "label-studio": Converter(label_studio, "Label Studio's JSON export", "", ("clip_boxes",), DETECTED),
    "cvat": Converter(cvat, "CVAT for images 1.1 (XML)", "a file of datumaro", ("clip_boxes",), DETECTED),
    "vqav2": Converter(
        vqa, "VQAv2: the questions, --annotations the answers", takes=("annotations", "answers", "clean")
    ),
    "okvqa": Converter(
        vqa, "OK-VQA: the questions, --annotations the answers", takes=("annotations", "answers", "clean")
    ),
    "aokvqa": Converter(aokvqa, "A-OKVQA: aokvqa_v1p0_train.json", takes=("answers", "split", "clean")),
    "gqa": Converter(gqa, "GQA: train_balanced_questions.json", takes=("answers", "clean")),
    "ocrvqa": Converter(ocrvqa, "OCR-VQA: dataset.json, --media its images", takes=("split", "clean")),
    "coco-captions": Converter(coco_captions, "COCO captions: captions_train2014.json", takes=("clean",)),
    "textcaps": Converter(textcaps, "TextCaps: TextCaps_0.1_train.json, --media TextVQA's images", takes=("clean",)),
    "llava": Converter(llava, "LLaVA instruction data: llava_instruct_150k.json", takes=("clean",)),
    "webdataset": Converter(webdataset, "image-text pairs in tar shards (img2dataset)", takes=("clean",)),
    "librispeech": Converter(librispeech, "LibriSpeech: any folder above the .trans.txt files", takes=("language",)),
    "aishell": Converter(aishell, "AISHELL-1: the folder data_aishell", takes=("split", "clean", "language")),
    "common-voice": Converter(
        common_voice, "Common Voice: train.tsv, beside the folder clips", takes=("split", "language")
    ),
    "fleurs": Converter(fleurs, "FLEURS: en_us/train.tsv", takes=("split", "clean", "language")),
    "nemo": Converter(nemo, "NeMo's manifests (JSON Lines)", takes=("language",), tasks=("transcribe", "translate")),
    "lhotse": Converter(
        lhotse,
        "Lhotse's manifests: cuts, or supervisions with --annotations the recordings",
        "files of lhotse",
        ("annotations", "language"),
    ),
    "kaldi": Converter(kaldi, "Kaldi's data folder: wav.scp, segments, text", "files of lhotse", ("language",)),
    "espnet": Converter(kaldi, "ESPnet's data folder: wav.scp, segments, text", "files of lhotse", ("language",)),
    "covost": Converter(
        covost,
        "CoVoST 2: covost_v2.fr_en.train.tsv, --media Common Voice's clips",
        takes=("annotations", "split", "language", "to"),
        tasks=("translate", "transcribe"),
    ),
    "clotho": Converter(clotho, "Clotho: clotho_captions_development.csv, --media its recordings"),
    "mfa": Converter(
        mfa,
        "word times: TextGrids of the Montreal Forced Aligner, --media the recordings",
        takes=("language", "tier"),
    ),
    "whisper": Converter(
        whisper,
        "transcripts as JSON: whisper, WhisperX, faster-whisper, whisper.cpp, OpenAI's verbose_json",
        "files of the writers of whisper and WhisperX",
        ("language",),
        TIMED,
    ),
    "subtitles": Converter(
        subtitles,
        "subtitles: SubRip (.srt), WebVTT (.vtt); Whisper's .tsv",
        "files of whisper's writer",
        ("language",),
        TIMED,
    ),
    "ctm": Converter(ctm, "word times as CTM", "files of meeteval", ("language",), TIMED),
    "stm": Converter(stm, "segments as STM", "files of meeteval", ("language",), TIMED),
    "rttm": Converter(rttm, "speaker turns as RTTM", "files of pyannote", ("language",), ("speaker", "transcribe")),
    "elan": Converter(elan, "ELAN's annotations (.eaf)", "files of pympi", ("language", "tier"), TIMED),
    "audacity": Converter(audacity, "labels exported by Audacity (.txt)", "", ("language",), TIMED),
    "qwen-audio": Converter(qwen_audio, "Qwen-Audio SFT text: a ChatML string a line", "sft_sample.txt"),
    "llasm": Converter(llasm, "LLaSM conversations (their data was never published; as the released code takes them)"),
    "openai": Converter(
        openai, "conversations with content in parts: OpenAI's API and fine-tuning, TRL", "rows of datasets"
    ),
    "parquet": Converter(
        parquet,
        "Hugging Face's parquet files",
        "files of datasets",
        ("split", "answers", "clip_boxes", "language"),
        ROW_TASKS,
    ),
    "imagefolder": Converter(
        folder,
        "pictures with metadata.jsonl, .csv or .parquet, or in a folder for each label",
        "",
        ("split", "answers", "clip_boxes", "language"),
        ROW_TASKS,
    ),
    "audiofolder": Converter(
        folder,
        "recordings with metadata.jsonl, .csv or .parquet, or in a folder for each label",
        "",
        ("split", "answers", "clip_boxes", "language"),
        ROW_TASKS,
    ),
    "ms-swift": Converter(
        ms_swift,
        "ms-swift JSON Lines: messages or query-response, objects",
        "multi_modal_1 to 3.jsonl",
        ("clip_boxes",),
    ),
    "llama-factory": Converter(
        llama_factory, "LLaMA-Factory JSON: sharegpt or alpaca with images, audios", "mllm_demo, mllm_audio_demo .json"
    ),
}

OPTIONS = {  # field of the job -> option of the command
    "annotations": "--annotations",
    "split": "--split",
    "language": "--language",
    "to": "--to",
    "tier": "--tier",
    "answers": "--answers",
    "clean": "--original-cleanup",
    "clip_boxes": "--clip-boxes",
    "max_area": "--max-area",
}


@dataclass
class Report:
    """``left_out``: bad entries by reason, the first of them in ``examples``. ``notes``: what was read and not used."""

    out: Path
    layout: str
    samples: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: list[BadEntry] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "layout": self.layout,
            "samples": self.samples,
            "left_out": dict(self.left_out.most_common()),
            "notes": dict(self.notes.most_common()),
            "examples": [str(e) for e in self.examples],
        }


def convert(
    name: str,
    path: str | Path,
    out: str | Path,
    *,
    media: str | Path | None = None,
    on_bad: Literal["fail", "skip"] = "fail",
    limit: int | None = None,
    on_bad_entry: Callable[[BadEntry], None] | None = None,
    **options: Any,
) -> Report:
    """Writes the samples of ``path``, a file or folder in the layout ``name``, to ``out``.

    ``media``: folder of the pictures or recordings (default: where the annotations are). ``limit``: the first so many
    samples. ``name`` may be "auto": the layout is told from the files. ``options``: those fields of `Job` that the
    layout takes (`Converter.takes`, and ``task``). With ``on_bad`` "fail" the first `BadEntry` is raised and nothing is
    written. Raises `WeftError` where no sample is left.
    """
    if name == "auto":
        told, at = layout_at(path)
        if told is None:
            raise WeftError(f"{path}: {_untold(path)}")
        if at != os.fspath(path):
            raise WeftError(f"{path}: {command(path)}")
        name = told
    converter = CONVERTERS.get(name)
    if converter is None:
        raise WeftError(
            f"there is no layout {name!r}: {guess(name, tuple(CONVERTERS))}layouts are {', '.join(CONVERTERS)}"
        )
    job = _job(name, converter, Path(path), Path(out), None if media is None else Path(media), options)
    report = Report(job.out, name, notes=job.notes)

    def samples() -> Iterator[Conversation]:
        for found in converter.read(job):
            made = found if isinstance(found, BadEntry) else _checked(job, found)
            if not isinstance(made, BadEntry):
                report.samples += 1
                yield made
                continue
            if on_bad == "fail":
                raise made
            report.left_out[made.reason] += 1
            if len(report.examples) < EXAMPLES:
                report.examples.append(made)
            if on_bad_entry is not None:
                on_bad_entry(made)

    def some() -> Iterator[Conversation]:
        yield from islice(samples(), limit)
        if not report.samples:
            why = ", ".join(f"{n} {reason}" for reason, n in report.left_out.most_common())
            first = f"; the first: {report.examples[0]}" if report.examples else ""
            raise WeftError(
                f"{path}: gives no sample, so nothing is written" + (f" (left out: {why}{first})" if why else "")
            )

    write_samples(job.out, some())
    report.notes = +job.notes  # without what was counted and not met
    return report


def _untold(path: str | os.PathLike[str]) -> str:
    """Why there is nothing to convert in what no layout is told from."""
    with suppress(WeftError, StopIteration):
        next(iter_samples(path))
        return "holds weft's own samples: there is nothing to convert"
    return "which layout it has cannot be told from it: name one (weft data convert list)"


def _job(name: str, converter: Converter, path: Path, out: Path, media: Path | None, options: dict[str, Any]) -> Job:
    plain = {"answers": "majority", "clean": False, "clip_boxes": False}
    given = {k: v for k, v in options.items() if v is not None and v != plain.get(k)}
    if "task" in given and given["task"] not in converter.tasks:
        known = f"it has {', '.join(converter.tasks)}" if converter.tasks else "it has one task only"
        raise WeftError(f"the layout {name} cannot give --task {given['task']}: {known}")
    for key in given.keys() - {"task"}:
        if key not in converter.takes:
            taken = ", ".join(OPTIONS[k] for k in converter.takes)
            raise WeftError(
                f"the layout {name} has no use for {OPTIONS.get(key, key)}: "
                + (f"it takes {taken}" if taken else "leave it out")
            )
    if "answers" in given and given["answers"] not in (kinds := ("majority", "every", *(("full",) * (name == "gqa")))):
        raise WeftError(f"--answers {given['answers']}: the layout {name} has {', '.join(kinds)}")
    for place, what in ((path, ""), (media, "--media "), (given.get("annotations"), "--annotations ")):
        if place is not None and not Path(place).exists():
            raise WeftError(f"{what}{place}: no such file or folder: check the path")
    if media is not None and not media.is_dir():
        raise WeftError(f"--media {media}: is no folder: name the folder of the pictures or recordings")
    if out.exists() and any(
        p is not None and p.is_file() and out.samefile(p) for p in (path, given.get("annotations"))
    ):
        raise WeftError(f"{out}: would be written over what is read: give another name with -o")
    return Job(path, out, media, **given)


def _checked(job: Job, found: Found) -> Conversation | BadEntry:
    """The sample as the sample format has it: what `weft data validate` would say is said here, of the entry.

    An answer without words is a missing cell: the format takes it for silence, which no layout writes so.
    """
    try:
        made = parse_sample(found.sample, exists=job.exists, probe=job.size)
    except SampleError as e:
        gives = f"gives {e.field}: " if e.field else ""
        reason = next((r for said, r in BAD_BOXES.items() if said in e.problem), "does not fit the sample format")
        return BadEntry(gives + e.problem, reason=reason, entry=found.entry)
    for number, message in enumerate(made.messages):
        if any(isinstance(part, Box) and without_area(part.boxes) for part in message.parts):
            problem = f"gives messages[{number}]: one of its boxes has no area"
            return BadEntry(problem, reason=BAD_BOXES["has no area"], entry=found.entry)
        if message.role == "assistant" and not any(not isinstance(p, Text) or p.text.strip() for p in message.parts):
            return BadEntry(f"gives messages[{number}]: {NO_ANSWER}", reason="no answer", entry=found.entry)
    for where, number, last in last_words(made):
        try:
            seconds = job.seconds(made.audios[number].source)
        except WeftError as e:
            return BadEntry(str(e), reason="media file cannot be read", entry=found.entry)
        if seconds is not None and (late := end_problem(last, seconds)):
            return BadEntry(f"gives {where}: {late}", reason="word past the end of its clip", entry=found.entry)
    return made


__all__ = ["CONVERTERS", "BadEntry", "Converter", "Job", "Report", "convert"]
