"""Questions about pictures: VQAv2, OK-VQA, A-OKVQA, GQA and OCR-VQA.

Sources: visualqa.org/download.html (VQAv2; OK-VQA has its layout), allenai/aokvqa's README, the GQA download page, and
(OCR-VQA by it alone) minigpt4/datasets/datasets/*vqa_dataset*.py of Vision-CAIR/MiniGPT-4 at d94738a, whose list form
is read too.

Several people answered each question. ``--answers majority`` (the default) writes the most frequent answer, the first
given among equals; ``every`` writes one sample for each answer, which gives answers the weight MiniGPT-4 draws them
with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from os.path import splitext
from typing import Any

from weft.conversation import WeftError
from weft.data.converters.base import (
    BadEntry,
    Job,
    Part,
    Read,
    Sample,
    blip_caption,
    get,
    identity,
    image,
    sample,
    task,
    text,
)
from weft.data.converters.jsonfile import Entry, begins_with, entries, items, members

COCO = ("train2014", "val2014", "test2015")
COVERS = {"train": 1, "val": 2, "test": 3}
COCO_2017 = ("train2017", "val2017", "test2017")


def vqa(job: Job) -> Read:
    """VQAv2 and OK-VQA; from documentation, not verified.

    PATH is the file of questions (``{"questions": [{"question_id", "image_id", "question"}]}``), ``--annotations`` that
    of answers (``{"annotations": [{"question_id", "multiple_choice_answer", "answers": [{"answer"}]}]}``), whose
    answers are held in memory; without it requests are written. A list of ``{"image", "question", "answer": [...],
    "question_id"}``, as MiniGPT-4 trains on, is read too.
    """
    if begins_with(job.path) == "[":
        yield from job.each(entries(job.path), lambda e: _flat(job, e.value))
        return

    def given(entry: Any) -> tuple[str, list[Any]]:
        chosen = entry.get("multiple_choice_answer") if isinstance(entry, dict) else None
        if job.answers == "majority" and isinstance(chosen, str):
            return identity(entry, "question_id"), [chosen]  # what the authors say is the most frequent one
        given = [a.get("answer") if isinstance(a, dict) else a for a in get(entry, "answers", list)]
        return identity(entry, "question_id"), given

    answers: dict[str, list[Any]] = {}
    if job.annotations is not None:
        answers = job.table(items(job.annotations, "annotations"), given)

    def make(e: Entry) -> Iterator[Sample]:
        entry = e.value
        name = identity(entry, "question_id")
        if job.annotations is not None and name not in answers:
            raise BadEntry(f"{name} has no answers in {job.annotations}", reason="no answer", field="question_id")
        path = _coco(job, get(entry, "image_id", int), COCO)
        yield from _asked(job, name, path, get(entry, "question"), answers.get(name))

    yield from job.each(items(job.path, "questions"), make)


def _flat(job: Job, entry: Any, key: str = "answer") -> Iterator[Sample]:
    picture = get(entry, "image")
    path = job.find(picture, picture.split("/")[-1], what="image")
    yield from _asked(job, identity(entry, "question_id"), path, get(entry, "question"), _given(entry, key))


def aokvqa(job: Job) -> Read:
    """A-OKVQA with direct answers; from documentation, not verified.

    A list of ``{"question_id", "image_id", "question", "direct_answers": [...], "choices", "correct_choice_idx",
    "rationales", "split"}``; pictures are COCO 2017 (``train2017/000000299207.jpg``). Choices and rationales are not
    used, as in MiniGPT-4. A test file has no answers and gives requests. MiniGPT-4's list form is read too.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry = e.value
        if isinstance(entry, dict) and "image" in entry:
            yield from _flat(job, entry, "direct_answers" if "direct_answers" in entry else "answer")
            return
        if job.split is not None and get(entry, "split") != job.split:
            job.notes["questions of other splits"] += 1
            return
        path = _coco(job, get(entry, "image_id", int), COCO_2017)
        given = _given(entry, "direct_answers")
        yield from _asked(job, identity(entry, "question_id"), path, get(entry, "question"), given)

    yield from job.each(entries(job.path), make)


def gqa(job: Job) -> Read:
    """GQA's question files; from documentation, not verified.

    ``train_balanced_questions.json``: an object of question id to ``{"imageId", "question", "answer", "fullAnswer"}``;
    pictures are ``<imageId>.jpg``. ``--answers full`` writes the sentence ``fullAnswer``. MiniGPT-4's list form is read
    too.
    """
    if begins_with(job.path) == "[":
        yield from job.each(entries(job.path), lambda e: _flat(job, e.value))
        return
    key = "fullAnswer" if job.answers == "full" else "answer"

    def make(e: Entry) -> Iterator[Sample]:
        entry, number = e.value, identity(e.value, "imageId")
        path = job.find(f"{number}.jpg", f"images/{number}.jpg", what="image")
        given = _given({key: entry.get(key)}, key) if "answer" in entry else None
        yield from _asked(job, e.name or number, path, get(entry, "question"), given)

    yield from job.each(members(job.path), make)


def ocrvqa(job: Job) -> Read:
    """OCR-VQA, a sample for each question about a book's cover; from documentation, not verified.

    ``dataset.json``: an object of cover id to ``{"imageURL", "questions": [...], "answers": [...], "split"}``, whose
    split is 1 (train), 2 (val) or 3 (test). Its script saves the picture as the id and the address's ending, in
    ``images``. An address is never fetched.
    """
    if job.split is not None and job.split not in COVERS:
        raise WeftError(f"--split {job.split}: OCR-VQA has {', '.join(COVERS)}")

    def make(e: Entry) -> Iterator[Sample]:
        entry, number = e.value, e.name or ""
        if get(entry, "split", int) not in COVERS.values():
            raise BadEntry(f"must be 1, 2 or 3, this is {entry['split']}", field="split")
        if job.split is not None and entry["split"] != COVERS[job.split]:
            job.notes["covers of other splits"] += 1
            return
        questions, answers = get(entry, "questions", list), get(entry, "answers", list)
        if len(questions) != len(answers):
            raise BadEntry(f"{len(questions)} questions and {len(answers)} answers: must be as many", field="answers")
        name = number + splitext(get(entry, "imageURL"))[1]
        path = job.find(name, f"images/{name}", what="image")
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            if not isinstance(question, str):
                raise BadEntry("must be a list of strings", field="questions")
            yield from _asked(job, f"{number}-{i}", path, question, [answer])

    yield from job.each(members(job.path), make)


def _coco(job: Job, number: int, splits: tuple[str, ...]) -> str:
    """A COCO picture by its number: 2014 and 2015 names have the split in them, 2017 names do not."""
    new = splits is COCO_2017
    plain = [f"{number:012}.jpg" if new else f"COCO_{split}_{number:012}.jpg" for split in splits]
    inside = [f"{split}/{name}" for split, name in zip(splits, plain, strict=True)]
    return job.find(*dict.fromkeys((*plain, *inside)), *(() if new else (f"{number:012}.jpg",)), what="image")


def _given(entry: dict[str, Any], key: str) -> list[Any] | None:
    """The answers that an entry has: one or a list; None: it has none, being a request."""
    given = entry.get(key)
    return given if isinstance(given, list) else [given] if key in entry else None


def _asked(job: Job, name: str, path: str, question: str, given: list[Any] | None) -> Iterator[Sample]:
    yield from asked(job, name, [image(path)], question, given, "vqa")


def asked(job: Job, name: str, seen: list[Part], question: str, given: list[Any] | None, kind: str) -> Iterator[Sample]:
    """A question about media and the answer that ``job.answers`` chooses; None given: a request."""
    asked = [*seen, task(kind), text(blip_caption(question) if job.clean else question)]
    if given is None:
        yield sample(name, asked, None)
        return
    answers = ["" if a is None else a for a in given] or [""]  # nothing said: named where samples are checked
    if not all(isinstance(a, str) for a in answers):
        raise BadEntry("must be a string or a list of strings", field="answers")
    if job.clean:
        answers = [blip_caption(a) for a in answers]
    if job.answers == "every":
        for i, answer in enumerate(answers):
            yield sample(f"{name}-{i}", asked, answer)
    else:
        yield sample(name, asked, Counter(answers).most_common(1)[0][0])
