"""Held-out figures of the bundled model, beside the best constant answer and a cascade, as a table in Markdown.

    python benchmarks/bundled_exam.py MODEL DATA -o FOLDER [--digits real/digits/test.jsonl] [--clip FILE=TEXT ...]
        [--limit 60] [--only ROW ...] [--list]

DATA is what bundled_data.py made: the test splits hold sentences, voices and speeds that no training has heard
(`hibari.py` adds a voice of another make). The cascade is the parts alone: Whisper tiny.en transcribes (greedily, clips
filled up to 30 s as it was taught), and SmolLM2 answers what it wrote. FOLDER gets a report a row, and exam.json, which
a second call goes on from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration, WhisperProcessor

import weft
from weft.conversation import Audio, Conversation, Image, Message, Task, Text, Words, read_samples, write_samples
from weft.evaluation.metrics import chosen, measure
from weft.evaluation.pairs import Pair
from weft.evaluation.run import evaluate
from weft.files import whole_file
from weft.generation import Model, Options
from weft.media import load_audio
from weft.parts import sources
from weft.playground import sentences, world
from weft.playground.chance import Chance
from weft.playground.speech import say_aloud
from weft.playground.together import to_say

WORLD = ("vqa", "refer", "identify", "detection", "locate", "locate_word", "speech_question", "question")
PROMPT_TOKENS, TEXT_TOKENS = 16, 32  # of an answer that is compared
CASCADE, ITSELF = ", cascade", ", heard itself"  # end the name of a row that stands beside another
Report = dict[str, Any]
Row = tuple[str, Callable[[], Report]]


def rows(load: Callable[[], Model], options: argparse.Namespace) -> Iterator[Row]:
    """What is examined, and what examines it."""

    def scored(name: str, data: Callable[[], Path], tokens: int = 80) -> Row:
        limits = Options(max_new_tokens=tokens)
        return name, lambda: evaluate(load(), data(), options.out / name, limit=options.limit, options=limits)

    def chosen_from(name: str, found: Callable[[], Iterator[Conversation] | list[Conversation]]) -> Callable[[], Path]:
        def write() -> Path:
            path = options.out / f"{name}.jsonl"
            write_samples(path, found())
            return path

        return write

    plain = options.data / "plain" / "test.jsonl"
    speech: dict[str, Callable[[], Path]] = {"unseen speech": lambda: plain}
    for name, folder in (("an unheard voice of flite", "voices"), ("a neural voice", "neural")):
        if (path := options.data / folder / "test.jsonl").exists():
            speech[name] = lambda path=path: path  # type: ignore[misc]
    if options.digits:
        timed = lambda wanted: [c for c in read_samples(options.digits) if has_times(c) == wanted]  # noqa: E731
        speech["digits"] = chosen_from("digits", partial(timed, False))
        yield scored("digits with times", chosen_from("digits with times", partial(timed, True)), 200)
    if options.clip:
        speech["clips"] = chosen_from("clips", lambda: [told(*clip.split("=", 1)) for clip in options.clip])
    for name, data in speech.items():
        yield scored(name, data)
        yield f"{name}{CASCADE}", lambda data=data: heard(data(), options.limit)  # type: ignore[misc]
    yield scored("unseen speech with times", lambda: options.data / "speech" / "test.jsonl", 200)
    for task in WORLD:
        folder = options.out / "world" / task
        yield scored(task, lambda t=task, f=folder: world.write(f, "test", options.limit, seed=1, tasks=[t]))  # type: ignore[misc]
    for name, task, marked in (("count", "vqa", counts), ("refer, new pairs", "refer", is_new)):
        picked = partial(drawn, task, marked, options.limit, options.out / "world" / name)
        yield scored(name, chosen_from(name, picked))
    yield "spoken as typed", lambda: spoken(load(), plain, options.limit)
    yield "spoken prompt as typed", lambda: spoken(load(), options.data / "talk" / "test.jsonl", options.limit)
    yield f"spoken as typed{ITSELF}", lambda: spoken(hearing(load()), plain, options.limit)
    yield f"spoken as typed{CASCADE}", lambda: retold(plain, options.limit)
    for name, ear in (
        ("spoken about a picture as typed", None),
        (f"spoken about a picture as typed{CASCADE}", transcript),
    ):
        yield name, lambda ear=ear: about_pictures(load(), options.limit, ear)  # type: ignore[misc]
    yield f"spoken about a picture as typed{ITSELF}", lambda: about_pictures(hearing(load()), options.limit)
    for name, whole in (("text only", True), ("text only, without LoRA", False)):
        yield name, lambda whole=whole: typed(load(), options.data, options.limit, whole)  # type: ignore[misc]
    yield "cost, CPU s", lambda: costs(options.model, plain)


# ----------------------------------------------------------------------------------------------------------- samples


def told(file: str, text: str) -> Conversation:
    """A clip and what is said in it."""
    asked = Message("user", (Audio(str(Path(file).absolute())), Task("transcribe", {"language": "en"})))
    return Conversation((asked, Message("assistant", (Text(text),))), Path(file).stem)


def is_new(sample: Conversation) -> bool:
    """Whether it shows a colour and shape that never stand together in training."""
    return "new_pair" in str(sample.id)


def counts(sample: Conversation) -> bool:
    return any(isinstance(p, Text) and p.text.lower().startswith("how many") for p in sample.messages[0].parts)


def drawn(task: str, wanted: Callable[[Conversation], bool], limit: int, folder: Path) -> Iterator[Conversation]:
    """Test samples of a task of the world that are ``wanted``."""
    folder.mkdir(parents=True, exist_ok=True)
    made = ((n, world.sample(n, "test", seed=2, tasks=[task])) for n in count())
    return islice((world.filed(sample, folder, n) for n, sample in made if wanted(sample)), limit)


# ----------------------------------------------------------------------------------------------------------- cascade


@cache
def whisper() -> tuple[Any, Any]:
    folder = sources()["audio"]
    return WhisperProcessor.from_pretrained(folder), WhisperForConditionalGeneration.from_pretrained(folder).float()


def transcript(clip: Audio) -> str:
    """What Whisper alone makes of a clip."""
    processor, model = whisper()
    mel = processor(load_audio(clip.source), sampling_rate=16000, return_tensors="pt").input_features
    ids = model.generate(mel, max_new_tokens=80)
    return str(processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()


@cache
def smollm() -> Any:
    return AutoModelForCausalLM.from_pretrained(sources()["language"]).float().eval()


def heard(data: Path, limit: int) -> Report:
    pairs = [Pair.of(asked, (Text(transcript(asked.audios[0])),)) for asked in read_samples(data)[:limit]]
    return {"metrics": measure(pairs, chosen(["wer"])).metrics, "baseline": {}}


def retold(data: Path, limit: int) -> Report:
    """How far SmolLM2 answers what Whisper wrote as what was said."""
    from transformers import AutoTokenizer

    tokenizer, pairs = AutoTokenizer.from_pretrained(sources()["language"]), []
    for said in read_samples(data)[:limit]:
        answers = []
        for text in (transcript(said.audios[0]), said.answer.text if said.answer else ""):
            asked = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(
                asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            answers.append(greedy(smollm(), ids["input_ids"], PROMPT_TOKENS))
        pairs.append(answers)
    return one("prompt", **alike(pairs, PROMPT_TOKENS))


# --------------------------------------------------------------------------------------------------- answers compared


def alike(pairs: Sequence[Sequence[Any]], tokens: int) -> dict[str, float]:
    """Of pairs of answers of at most so many tokens: the share that is the same, and how many of the first tokens are,
    in the mean; all of them where the answers are the same."""
    first = [next((n for n in range(tokens) if a != b and a[n : n + 1] != b[n : n + 1]), tokens) for a, b in pairs]
    return {"same": sum(a == b for a, b in pairs) / len(pairs), "first_tokens_same": sum(first) / len(first)}


def spoken(model: Model, data: Path, limit: int) -> Report:
    """How far what is spoken is answered as the same typed, greedily, in the first tokens. Samples are transcripts, of
    anything that can be said, or prompts of which it is known what is said."""
    pairs, limits = [], Options(max_new_tokens=PROMPT_TOKENS)
    for said in read_samples(data)[:limit]:
        answers, (clip,) = [], said.audios
        for part in (clip, Text(clip.transcript or (said.answer.text if said.answer else ""))):
            text = model.chat(Conversation((Message("user", (part,)),)), limits).text
            answers.append(model.processor.renderer.encode_text(text))
        pairs.append(answers)
    return one("prompt", **alike(pairs, PROMPT_TOKENS))


def hearing(model: Model) -> Model:
    """The model, which answers what it hears without writing it down."""
    return Model(model.model, model.processor.with_switches(spoken="heard"), model.name)


def about_pictures(model: Model, limit: int, ear: Callable[[Audio], str] | None = None) -> Report:
    """How often a spoken question about a picture is answered as the same question typed, and how often rightly; with
    an ``ear``, the model is asked what that writes of it."""
    same, right, limits = [], [], Options(max_new_tokens=PROMPT_TOKENS)
    for n in range(limit):
        chance = Chance(np.random.default_rng((7, n)), "test", "en")
        scene, question, answer = to_say(chance)
        clip = say_aloud(chance, question).audio
        said = Text(ear(clip)) if ear else clip
        answers = [
            model.chat(Conversation((Message("user", (Image(scene.render()), part)),)), limits).text
            for part in (said, Text(question))
        ]
        same.append(answers[0] == answers[1])
        right.append(answers[0].strip().lower() == answer.lower())
    return one("picture", same=sum(same) / len(same), right=sum(right) / len(right))


def greedy(model: Any, ids: torch.Tensor, tokens: int) -> list[int]:
    ends = {"eos_token_id": smollm().config.eos_token_id, "pad_token_id": smollm().config.eos_token_id}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, **ends)
    return list(out[0, ids.shape[1] :].tolist())


@torch.inference_mode()
def typed(model: Model, data: Path, limit: int, whole: bool) -> Report:
    """Prompts without media, answered as SmolLM2 itself does: ids, and the log-probability of its own answers.

    Not ``whole``: of a model whose LoRA is merged, with SmolLM2's weights in their place, and weft's rows of tokens.
    """
    import copy

    other = smollm()
    language = model.model if model.model.gate is not None else model.model.language_model
    if not whole and model.model.gate is None:
        language = copy.deepcopy(language)
        for name, value in language.state_dict().items():
            own = other.state_dict()[name]
            value[: len(own)] = own
    texts = [json.loads(line)["text"] for line in (data / "prompts.jsonl").read_text().splitlines()]
    texts = [text for text in texts if sentences.split_of(text) != "train"][:limit]
    pairs, gaps = [], []
    for text in texts:
        asked = Conversation((Message("user", (Text(text),)),))
        ids = torch.tensor([model.processor.encode(asked, generate=True).input_ids])
        answer = greedy(other, ids, TEXT_TOKENS)
        pairs.append((answer, greedy(language, ids, TEXT_TOKENS)))
        whole = torch.cat([ids, torch.tensor([answer])], 1)
        sums = []
        for each in (language, other):
            logits = each(whole).logits[0, ids.shape[1] - 1 : -1].float().log_softmax(-1)
            sums.append(float(logits.gather(1, torch.tensor(answer)[:, None]).sum()))
        gaps.append(abs(sums[0] - sums[1]) / len(answer))
    return one("text", **alike(pairs, TEXT_TOKENS), nats_a_token_apart=sum(gaps) / len(gaps))


def one(task: str, **figures: float) -> Report:
    return {"metrics": {task: figures}, "baseline": {}}


# -------------------------------------------------------------------------------------------------------------- costs

COST = """
import json, sys, time
import weft
found = {"import": time.process_time()}
import numpy, torch
torch.set_num_threads(1)
from PIL import Image
from weft.media import load_audio
model = weft.load(sys.argv[1])
wave = numpy.resize(load_audio(sys.argv[2]), 80000)
def ask(tokens, text):
    seen, heard = Image.new("RGB", (300, 200), "teal"), (wave, 16000)
    parts = [{"type": "image", "image": seen}, {"type": "audio", "audio": heard}, {"type": "text", "text": text}]
    begin = time.process_time()
    count = model.chat([{"role": "user", "content": parts}], max_new_tokens=tokens).tokens
    return count, time.process_time() - begin
ask(8, "What is this?")
found["load and first answer"] = time.process_time() - found["import"]
text = "Tell me a long story about what you see."
(few, short), (many, long) = ask(2, text), ask(42, text)
found["a further token"] = (long - short) / max(many - few, 1)
print(json.dumps(found))
"""


def costs(model: str, plain: Path) -> Report:
    """CPU seconds in a process of its own: import; load, and first answer about 5 s and a picture; a further token."""
    clip = str(read_samples(plain)[0].audios[0].source)
    done = subprocess.run([sys.executable, "-c", COST, model, clip], capture_output=True, text=True, check=True)
    return one("seconds", **json.loads(done.stdout.splitlines()[-1]))


def has_times(asked: Conversation) -> bool:
    return asked.answer is not None and any(isinstance(part, Words) for part in asked.answer.parts)


def table(found: dict[str, Report]) -> str:
    lines = ["| what | metric | weft | best constant answer | cascade |", "|---|---|---|---|---|"]
    for name, report in found.items():
        if name.endswith(CASCADE):
            continue
        beside = found.get(f"{name}{CASCADE}", {}).get("metrics", {})
        for task, figures in report["metrics"].items():
            for metric, value in figures.items():
                others = [own.get(task, {}).get(metric) for own in (report["baseline"], beside)]
                told = ["" if other is None else f"{other:.3g}" for other in others]
                shown = "–" if value is None else f"{value:.3g}"
                lines.append(f"| {name} | {task}.{metric} | {shown} | {told[0]} | {told[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--digits", type=Path)
    parser.add_argument("--clip", action="append", metavar="FILE=TEXT", help="a recording and its words; repeatable")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="of --list; with its cascade")
    parser.add_argument("--list", action="store_true", help="name the rows, and do no more")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "exam.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    torch.set_num_threads(1)
    examined = list(rows(cache(lambda: weft.load(options.model)), options))
    if strange := set(options.only or ()) - {name for name, _ in examined}:
        parser.error(f"no row {', '.join(sorted(strange))}; --list names them")
    if options.list:
        print("\n".join(name for name, _ in examined))
        return
    for name, examine in examined:
        if name not in found and (not options.only or name.removesuffix(CASCADE) in options.only):
            report = examine()
            found[name] = {key: report[key] for key in ("metrics", "baseline")}
            with whole_file(path) as file:
                json.dump(found, file, indent=1)
            print(name, json.dumps(found[name]["metrics"]), flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
