"""One sample of any task, with its exact answer: what the tiny sizes of the recipes learn from.

`make` gives a conversation whose pictures and clips are in memory, `write` one sample file that holds its media too (as
data URLs: thousands of small files take longer to write than to learn from). Both follow from a seed alone.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from weft.conversation import Audio, Box, Conversation, Image, Message, Part, Task, Text, Words, write_samples
from weft.playground import shapes, tones
from weft.playground.shapes import RATE, Shape

PLAYED, PLAY_SEED = 240, 1  # samples of a task that a recipe names, and what they follow from
Turns = list[tuple[list[Part], list[Part]]]  # what is asked, and the answer

# ------------------------------------------------------------------------------------------------------------ pictures


def _picture(rng: np.random.Generator) -> tuple[Image, list[Shape]]:
    """A picture, and its shapes from left to right."""
    picture, found = shapes.draw_picture(rng)
    return Image(picture), sorted(found, key=lambda shape: shape.box)


def _name(shape: Shape) -> str:
    return f"{shape.color} {shape.shape}"


def caption(rng: np.random.Generator) -> Turns:
    picture, found = _picture(rng)
    return [([picture, Task("caption")], [Text(" and ".join(f"a {_name(s)}" for s in found))])]


def grounded_caption(rng: np.random.Generator) -> Turns:
    picture, found = _picture(rng)
    answer: list[Part] = []
    for i, shape in enumerate(found):
        answer += [Text(" and a " if i else "a "), Box((shape.box,), _name(shape), 0)]
    return [([picture, Task("grounded_caption")], answer)]


def refer(rng: np.random.Generator) -> Turns:
    picture, found = _picture(rng)
    one = found[int(rng.integers(len(found)))]
    return [([picture, Task("refer"), Text(one.phrase)], [Box((one.box,), one.phrase, 0)])]


def identify(rng: np.random.Generator) -> Turns:
    picture, found = _picture(rng)
    one = found[int(rng.integers(len(found)))]
    return [([picture, Task("identify"), Box((one.box,), image=0)], [Text(_name(one))])]


def detection(rng: np.random.Generator) -> Turns:
    """All shapes of one kind that is in the picture."""
    picture, found = _picture(rng)
    kind = found[int(rng.integers(len(found)))].shape
    boxes = tuple(shape.box for shape in found if shape.shape == kind)
    return [([picture, Task("detection"), Text(kind)], [Box(boxes, kind, 0)])]


def vqa(rng: np.random.Generator) -> Turns:
    picture, found = _picture(rng)
    one = found[int(rng.integers(len(found)))]
    if rng.random() < 0.4:
        question, answer = "how many shapes are there?", shapes.NUMBERS[len(found)]
    else:
        question, answer = f"what shape is {one.color}?", one.shape
    return [([picture, Task("vqa"), Text(question)], [Text(answer)])]


def conversation(rng: np.random.Generator) -> Turns:
    """Two turns, the second of which refers to the first; the words alone say what is asked."""
    picture, found = _picture(rng)
    shapes_seen = " and ".join(s.shape for s in found)
    colors = " and ".join(s.color for s in found)
    return [
        ([picture, Text("which shapes do you see?")], [Text(shapes_seen)]),
        ([Text("and their colors?")], [Text(colors)]),
    ]


# --------------------------------------------------------------------------------------------------------------- sound


def _audio(wave: np.ndarray) -> Audio:
    return Audio((wave, RATE))


def _words(rng: np.random.Generator, low: int = 1, high: int = 4) -> list[str]:
    return [str(word) for word in rng.choice(list(tones.WORDS), int(rng.integers(low, high + 1)))]


def transcribe(rng: np.random.Generator) -> Turns:
    wave, heard = tones.say(rng, _words(rng), voice=str(rng.choice(list(tones.VOICES))))
    return [([_audio(wave), Task("transcribe", {"language": "en"})], [Text(" ".join(w.text for w in heard))])]


def transcribe_plain(rng: np.random.Generator) -> Turns:
    """The request before the clip or after it, no language named."""
    (asked, answer), *_ = transcribe(rng)
    request: list[Part] = [asked[0], Task("transcribe")]
    return [(request if rng.random() < 0.5 else request[::-1], answer)]


def word_times(rng: np.random.Generator) -> Turns:
    wave, heard = tones.say(rng, _words(rng), voice=str(rng.choice(list(tones.VOICES))))
    return [([_audio(wave), Task("transcribe", {"language": "en", "timestamps": True})], [Words(tuple(heard), 0)])]


def translate(rng: np.random.Generator) -> Turns:
    words = _words(rng)
    wave, _ = tones.say(rng, [tones.WORDS[word] for word in words], "de")
    return [([_audio(wave), Task("translate", {"language": "de", "to": "en"})], [Text(" ".join(words))])]


def entities(rng: np.random.Generator) -> Turns:
    name = str(rng.choice(tones.NAMES))
    words = _words(rng, 1, 2)
    words.insert(int(rng.integers(len(words) + 1)), name)
    return [([_audio(tones.say(rng, words)[0]), Task("entities", {"language": "en"})], [Text(name)])]


def emotion(rng: np.random.Generator) -> Turns:
    mood = str(rng.choice(tones.MOODS))
    return [([_audio(tones.say(rng, _words(rng), mood=mood)[0]), Task("emotion", {"language": "en"})], [Text(mood)])]


def speaker(rng: np.random.Generator) -> Turns:
    who = str(rng.choice(list(tones.VOICES)))
    return [([_audio(tones.say(rng, _words(rng), voice=who)[0]), Task("speaker", {"language": "en"})], [Text(who)])]


def spoken_question(rng: np.random.Generator) -> Turns:
    """A sum that is only heard."""
    a, b = (int(x) for x in rng.integers(1, 4, 2))
    wave, _ = tones.say(rng, [tones.NUMBERS[a - 1], "plus", tones.NUMBERS[b - 1]])
    return [([_audio(wave)], [Text(tones.NUMBERS[a + b - 1])])]


def spoken_question_about_picture(rng: np.random.Generator) -> Turns:
    """ "color circle", spoken, beside a picture with one circle."""
    picture, found = _picture(rng)
    alone = [s for s in found if sum(s.shape == other.shape for other in found) == 1]
    if alone:
        one = alone[int(rng.integers(len(alone)))]
        words, answer = ["color", one.shape], one.color
    else:
        words, answer = ["shape", found[0].color], found[0].shape
    return [([picture, _audio(tones.say(rng, words)[0])], [Text(answer)])]


def sound_conversation(rng: np.random.Generator) -> Turns:
    wave, heard = tones.say(rng, _words(rng, 2, 3))
    first = [([_audio(wave), Text("what is said?")], [Text(" ".join(w.text for w in heard))])]
    return [*first, ([Text("how many words is that?")], [Text(tones.NUMBERS[len(heard) - 1])])]  # type: ignore[list-item]


def sound_caption(rng: np.random.Generator) -> Turns:
    wave, heard = shapes.make_clip(rng)
    return [([_audio(wave), Task("caption")], [Text(", then ".join(f"a {s.name}" for s in heard))])]


def event(rng: np.random.Generator) -> Turns:
    wave, heard = shapes.make_clip(rng)
    return [([_audio(wave), Task("event")], [Text(", ".join(s.name for s in heard))])]


def question(rng: np.random.Generator) -> Turns:
    wave, heard = shapes.make_clip(rng)
    if rng.random() < 0.5:
        asked, answer = "how many sounds are there?", shapes.NUMBERS[len(heard)]
    else:
        asked, answer = "which sound is first?", heard[0].name
    return [([_audio(wave), Task("question"), Text(asked)], [Text(answer)])]


def locate(rng: np.random.Generator) -> Turns:
    wave, heard = shapes.make_clip(rng)
    times = tuple(tones.Word(s.name, s.start, s.end) for s in heard)
    return [([_audio(wave), Task("locate")], [Words(times, 0)])]


def vocal_sound(rng: np.random.Generator) -> Turns:
    name = str(rng.choice(tones.VOCAL_SOUNDS))
    return [([_audio(tones.vocal_sound(rng, name)), Task("vocal_sound")], [Text(name)])]


def scene(rng: np.random.Generator) -> Turns:
    name = str(rng.choice(tones.SCENES))
    return [([_audio(tones.scene(rng, name)), Task("scene")], [Text(name)])]


def note(rng: np.random.Generator) -> Turns:
    instrument, octave = str(rng.choice(tones.INSTRUMENTS)), int(rng.integers(3))
    answer = f"{instrument}, {('low', 'middle', 'high')[octave]}"
    return [([_audio(tones.note(rng, instrument, octave)), Task("note")], [Text(answer)])]


def music(rng: np.random.Generator) -> Turns:
    key, slow = str(rng.choice(list(tones.KEYS))), bool(rng.integers(2))
    answer = f"{'slow' if slow else 'fast'} music in {key}"
    return [([_audio(tones.music(rng, key, slow)), Task("music")], [Text(answer)])]


def text(rng: np.random.Generator) -> Turns:
    """Words alone."""
    first = int(rng.integers(4))
    count = int(rng.integers(2, 7 - first))
    numbers = tones.NUMBERS[first : first + count]
    if rng.random() < 0.5:
        return [([Text(f"count from {numbers[0]} to {numbers[-1]}")], [Text(" ".join(numbers))])]
    word = str(rng.choice(list(tones.WORDS)))
    return [([Text(f"what is {word} in German?")], [Text(tones.WORDS[word])])]


TASKS: dict[str, Callable[[np.random.Generator], Turns]] = {
    f.__name__: f
    for f in (
        *(caption, grounded_caption, refer, identify, detection, vqa, conversation),
        *(transcribe, transcribe_plain, word_times, translate, entities, emotion, speaker),
        *(spoken_question, spoken_question_about_picture, sound_conversation, sound_caption),
        *(event, question, locate, vocal_sound, scene, note, music, text),
    )
}


def make(task: str, index: int, seed: int) -> Conversation:
    """Sample ``index`` of a task; its media are a PIL image or ``(wave, rate)``."""
    rng = np.random.default_rng((seed, zlib.crc32(task.encode()), index))
    messages = []
    for asked, answer in TASKS[task](rng):
        messages += [Message("user", tuple(asked)), Message("assistant", tuple(answer))]
    return Conversation(tuple(messages), f"{task}-{index}")


def write(folder: Path, task: str, count: int, seed: int, name: str = "train") -> Path:
    """Writes ``folder/TASK/NAME.jsonl``; gives the file."""
    (folder / task).mkdir(parents=True, exist_ok=True)
    path = folder / task / f"{name}.jsonl"
    write_samples(path, (_enclosed(make(task, i, seed)) for i in range(count)))
    return path


def _enclosed(sample: Conversation) -> Conversation:
    """The sample with its media as data URLs: PNG and FLAC, both exact (sound to 16 bits)."""
    return sample.changed(_url)


def _url(part: Any) -> Any:
    file = BytesIO()
    if isinstance(part, Image):
        part.source.save(file, "PNG", compress_level=1)
        return Image(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    if isinstance(part, Audio):
        soundfile.write(file, part.source[0], part.source[1], format="FLAC", subtype="PCM_16")
        return Audio(f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}")
    return part


def make_if_named(path: Path) -> bool:
    """Makes a file ``.../playground/TASK/train.jsonl``, which recipes name; False where ``path`` is none."""
    if path.parts[-3:-2] != ("playground",) or path.name != "train.jsonl" or path.parts[-2] not in TASKS:
        return False
    write(path.parent.parent, path.parts[-2], PLAYED, PLAY_SEED)
    return True
