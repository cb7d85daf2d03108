"""What the recipe `bundled` learns from: the playground's world, speech of an open vocabulary, and spoken prompts.

    python benchmarks/bundled_data.py DATA [--world 6000] [--speech 16000] [--scenes 16000] [--pictures 2000]
        [--questions 12000] [--heard 5000] [--aloud 2000]

The open vocabulary is the language model's own: prompts that it makes up when asked to write a user's turn (as Magpie
does, https://arxiv.org/abs/2406.08464), its frequent words by chance, and digits. What it answers to such a prompt when
it is typed is what the spoken prompt is to be answered with (as Ultravox distils): its sentences within 48 tokens.

DATA/world/, grounded/ (those of them with boxes or word times), scenes/ (pictures of which all is told, with boxes),
pictures/ (asked where and what things are), questions/ (each thing of a picture asked about in turn), heard/ (clips
asked about), aloud/ (spoken questions about pictures), speech/ (with word times), plain/ (without), talk/ and typed/
(prompts, spoken and not), said/ (all else that is said in plain/, answered by the language model), silent/ (sounds
without speech, transcribed as nothing), each with train.jsonl, dev.jsonl and test.jsonl. Where flite is installed
(Debian's package; its voices are made of people's recordings), voices/ has texts of plain/ said by it, one voice in
test.jsonl alone. What is there already is kept.
`python -m benchmarks.photographs DATA` adds photos/, where Debian's package of them is there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from weft.conversation import Audio, Box, Conversation, Message, Task, Text, Words, read_samples, write_samples
from weft.files import whole_file
from weft.parts import sources
from weft.playground import sentences, world
from weft.playground.chance import Chance
from weft.playground.speech import Speech, say_aloud

LANGUAGE = sources()["language"]
PROMPTS = Path(__file__).with_name("prompts.jsonl")  # 960 that were made so, in half an hour of one core
SPLITS = {"train": 1.0, "dev": 0.04, "test": 0.04}  # shares of the numbers asked for
# Without a beginning, nine prompts of ten ask for help with a text that is not there.
BEGINNINGS = "What,How,Why,Where,Who,When,I,My,The,Is,Do,Please,Explain,Name,We,In,She,He,Tell me,Can you,Give me"
VOICES, UNHEARD = ("awb", "slt", "kal16"), "rms"
SENTENCES = re.compile(r".*[a-z\\)\"][.!?](?= |$)")  # whole ones of a line
PROMPT = re.compile(r"[A-Z][A-Za-z' ,-]+[.?!]")
PICTURES = ("vqa", "caption", "grounded_caption", "refer", "identify", "detection")
SCENES, LOOKING = ("grounded_caption",), ("refer", "identify", "detection", "vqa")
SOUNDS = ("transcribe", "word_times", "speech_question", "locate_word", "question", "sound_caption", "event", "locate")
BOTH = ("spoken_question", "spoken_refer", "which_picture", "which_clip", "picture_conversation", "speech_conversation")
HEARD = {"question": 3.0, "locate_word": 3.0, "locate": 2.0, "speech_question": 2.0, "spoken_question": 2.0}
HEARD |= {"event": 1.0, "sound_caption": 1.0, "spoken_refer": 1.0}
ALOUD = {"spoken_question": 3.0, "spoken_refer": 1.0}
TASKS = {**dict.fromkeys(PICTURES, 4.0), **dict.fromkeys(SOUNDS, 2.0), **dict.fromkeys(BOTH, 1.0)}


@torch.inference_mode()
def prompts(count: int, batch: int = 64) -> Iterator[dict[str, str]]:
    """What a user might ask, and what the language model answers greedily: sentences of 48 tokens, or ""."""
    tokenizer = AutoTokenizer.from_pretrained(LANGUAGE, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(LANGUAGE, dtype=torch.bfloat16).eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    torch.manual_seed(0)
    empty = tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    starts = [empty.split("<|im_end|>\n")[-2] + begin for begin in BEGINNINGS.split(",")]
    known: dict[str, None] = {}
    asked = 0
    while asked < count:
        ids = tokenizer(starts * 6, return_tensors="pt", padding=True, add_special_tokens=False)
        drawn = model.generate(**ids, do_sample=True, top_k=100, max_new_tokens=20, eos_token_id=end, pad_token_id=end)
        said = [tokenizer.decode(row, skip_special_tokens=True).split("user\n")[-1] for row in drawn]
        found = [m[0] for m in (re.match(r"[^.?!\n]+[.?!]", text) for text in said) if m and PROMPT.fullmatch(m[0])]
        known.update(dict.fromkeys(text for text in found if 3 <= len(text.split()) <= 16))
        while len(texts := list(known)[asked : asked + batch]) == batch:
            asked += batch
            yield from answered(texts, tokenizer, model, end)


def whole_sentences(said: str) -> str:
    """Those of an answer that was broken off; none where it has none."""
    found = SENTENCES.match(said)
    return found[0] if found else ""


def begun(said: str) -> str:
    """What was said up to the word at which it was broken off."""
    return said.rsplit(" ", 1)[0]


@torch.inference_mode()
def answered(
    texts: list[str], tokenizer: Any, model: Any, end: int, most: int = 48, cut: Callable[[str], str] = whole_sentences
) -> Iterator[dict[str, str]]:
    """What the language model says to texts, greedily; ``cut`` makes an answer of one of ``most`` tokens that has no
    end."""
    chats = [[{"role": "user", "content": text}] for text in texts]
    given = {"add_generation_prompt": True, "padding": True, "return_tensors": "pt", "return_dict": True}
    ids = tokenizer.apply_chat_template(chats, **given)
    answers = model.generate(**ids, do_sample=False, max_new_tokens=most, eos_token_id=end, pad_token_id=end)
    for text, row in zip(texts, answers[:, ids.input_ids.shape[1] :], strict=True):
        said = tokenizer.decode(row)
        yield {"text": text, "answer": said.split("<|im_end|>")[0] if "<|im_end|>" in said else cut(said)}


def all_said(data: Path, split: str, most: int, batch: int = 64) -> Iterator[Conversation]:
    """Clips of plain/ that are no prompts, answered with the beginning of what the language model says to their words:
    what is spoken to a model is not always a question. ``most``: texts that are answered."""
    tokenizer = AutoTokenizer.from_pretrained(LANGUAGE, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(LANGUAGE, dtype=torch.bfloat16).eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    samples = list(read_samples(data / "plain" / f"{split}.jsonl"))
    known = {clip.transcript for sample in read_samples(data / "talk" / f"{split}.jsonl") for clip in sample.audios}
    texts = sorted({sample.answer.text for sample in samples if sample.answer is not None} - known)
    texts = [texts[n] for n in np.random.default_rng(0).permutation(len(texts))[:most]]
    answers: dict[str, str] = {}
    for at in range(0, len(texts), batch):
        found = answered(texts[at : at + batch], tokenizer, model, end, 28, begun)
        answers |= {each["text"]: each["answer"] for each in found if each["answer"]}
    for sample in samples:
        if sample.answer is not None and (text := sample.answer.text) in answers:
            asked = Message("user", (replace(sample.audios[0], transcript=text),))
            yield Conversation((asked, Message("assistant", (Text(answers[text]),))), sample.id)


def silent(data: Path, split: str, number: int) -> Iterator[Conversation]:
    """Sounds in which nobody speaks, and nothing as their transcript."""
    (data / "silent" / split).mkdir(parents=True, exist_ok=True)
    for n in range(number):
        made = world.sample(n, split, seed=11, tasks=["event", "sound_caption"])
        clip = world.filed(made, data / "silent" / split, n).audios[0]
        asked = Message("user", (clip, Task("transcribe", {"language": "en"})))
        yield Conversation((asked, Message("assistant", (Text(""),))), f"{split}-{n}")


def said_by_flite(job: tuple[Conversation, str, Path]) -> Conversation:
    """The transcript of a text as a voice of flite says it, at a speed and pitch by chance."""
    sample, voice, path = job
    (text,) = (part.text for part in sample.learned[0].parts if isinstance(part, Text))
    rng = np.random.default_rng(int(path.stem))
    manner = {"duration_stretch": rng.uniform(0.8, 1.25), "int_f0_target_mean": rng.uniform(85, 210)}
    asked_for = [word for name, value in manner.items() for word in ("--setf", f"{name}={value:.2f}")]
    subprocess.run(["flite", "-voice", voice, *asked_for, "-t", text, "-o", path], check=True)
    user, answer = sample.messages
    heard = tuple(Audio(str(path)) if isinstance(part, Audio) else part for part in user.parts)
    return Conversation((Message("user", heard), answer), f"{voice}-{path.stem}")


def other_voices(data: Path, split: str, share: float, workers: int) -> None:
    samples = list(read_samples(data / "plain" / f"{split}.jsonl"))
    folder, chance = data / "voices" / split, np.random.default_rng((5, world.SPLITS.index(split)))
    folder.mkdir(parents=True, exist_ok=True)
    drawn = chance.choice(len(samples), round(share * len(samples)), replace=False)
    voices = [UNHEARD] if split == "test" else VOICES
    jobs = [(samples[n], voices[i % len(voices)], folder / f"{n:06}.wav") for i, n in enumerate(drawn.tolist())]
    with get_context("spawn").Pool(workers) as pool:
        write_samples(data / "voices" / f"{split}.jsonl", list(pool.imap(said_by_flite, jobs, chunksize=16)))


@cache
def asked(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@cache
def frequent() -> list[str]:
    """Words that are one token, frequent ones first (a byte-pair tokenizer found them in that order)."""
    vocabulary = AutoTokenizer.from_pretrained(LANGUAGE).get_vocab()
    words = [(number, token[1:]) for token, number in vocabulary.items() if re.fullmatch(r"Ġ[a-z]{3,10}", token)]
    return [word for _, word in sorted(words)][:9000]


def spoken(split: str, n: int, texts: Path) -> tuple[Speech, str]:
    """Clip ``n`` of a split, and what the language model answers to it ("" where it is no prompt)."""
    chance = Chance(np.random.default_rng((9, world.SPLITS.index(split), n)), split, "en")
    own = [a for a in asked(texts) if sentences.split_of(a["text"]) == split]
    which, answer = chance.rng.random(), ""
    if which < 0.35:
        text = sentences.sentence(chance)[0]
    elif which < 0.72:
        drawn = chance.one(own)
        text, answer = drawn["text"], drawn["answer"]
    elif which < 0.86:
        text = " ".join(chance.one(sentences.ONES[:10]) for _ in range(chance.whole(2, 6)))
    else:
        ranks = (chance.rng.random(chance.whole(3, 8)) ** 2 * len(frequent())).astype(int)
        text = " ".join(frequent()[rank] for rank in ranks)
    return say_aloud(chance, text), answer


def clip(job: tuple[str, int, Path, Path]) -> dict[str, Conversation]:
    """The samples of one clip, by file."""
    split, n, texts, folder = job
    said, answer = spoken(split, n, texts)
    path = folder / "speech" / split / f"{n:06}.wav"
    soundfile.write(path, said.wave, said.rate, subtype="PCM_16")
    heard = Audio(str(path))
    task = Task("transcribe", {"language": "en", "timestamps": True})
    timed = Message("user", (heard, task)), Message("assistant", (Words(said.words, 0),))
    plain = Message("user", (heard, Task("transcribe", {"language": "en"}))), Message("assistant", (Text(said.text),))
    found = {"speech": Conversation(timed, f"{split}-{n}"), "plain": Conversation(plain, f"{split}-{n}")}
    if answer:
        for name, asks in (("talk", replace(heard, transcript=said.text)), ("typed", Text(said.text))):
            found[name] = Conversation(
                (Message("user", (asks,)), Message("assistant", (Text(answer),))), f"{split}-{n}"
            )
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    for name, number in (
        ("world", 6000),
        ("speech", 16000),
        ("scenes", 16000),
        ("pictures", 2000),
        ("questions", 12000),
        ("heard", 5000),
        ("aloud", 2000),
        ("prompts", 960),
        ("said", 4000),
        ("silent", 700),
        ("workers", 2),
    ):
        options.add_argument(f"--{name}", type=int, default=number)
    given = options.parse_args()
    given.data.mkdir(parents=True, exist_ok=True)
    texts = given.data / "prompts.jsonl"
    if not texts.exists():
        kept = asked(PROMPTS)[: given.prompts]
        with whole_file(texts) as file:
            for found in kept if len(kept) == given.prompts else prompts(given.prompts):
                file.write(json.dumps(found) + "\n")
                file.flush()
    for split, share in SPLITS.items():
        if not (given.data / "world" / f"{split}.jsonl").exists():
            world.write(given.data / "world", split, round(share * given.world), tasks=TASKS, workers=given.workers)
            (given.data / "grounded").mkdir(exist_ok=True)
            drawn = read_samples(given.data / "world" / f"{split}.jsonl")
            told = [c for c in drawn if any(isinstance(p, Box | Words) for m in c.learned for p in m.parts)]
            write_samples(given.data / "grounded" / f"{split}.jsonl", told)
        told_of = (
            *(("scenes", given.scenes, 0, SCENES), ("pictures", given.pictures, 1, LOOKING)),
            *(("questions", given.questions, 2, ("picture_questions",)), ("heard", given.heard, 3, HEARD)),
            ("aloud", given.aloud, 4, ALOUD),
        )
        for name, number, seed, tasks in told_of:
            if not (given.data / name / f"{split}.jsonl").exists():
                world.write(given.data / name, split, round(share * number), seed, tasks, workers=given.workers)
        if (given.data / "speech" / f"{split}.jsonl").exists():
            continue
        (given.data / "speech" / split).mkdir(parents=True, exist_ok=True)
        jobs = [(split, n, texts, given.data) for n in range(round(share * given.speech))]
        with get_context("spawn").Pool(given.workers) as pool:
            found = list(pool.imap(clip, jobs, chunksize=16))
        for name in ("plain", "talk", "typed", "speech"):  # the file that says it is done comes last
            (given.data / name).mkdir(exist_ok=True)
            write_samples(given.data / name / f"{split}.jsonl", [each[name] for each in found if name in each])
    for split in SPLITS:
        if shutil.which("flite") and not (given.data / "voices" / f"{split}.jsonl").exists():
            other_voices(given.data, split, 0.4, given.workers)
        for name, made in (("said", all_said), ("silent", silent)):
            if not (path := given.data / name / f"{split}.jsonl").exists():
                path.parent.mkdir(exist_ok=True)
                write_samples(path, made(given.data, split, round(SPLITS[split] * getattr(given, name))))


if __name__ == "__main__":
    main()
