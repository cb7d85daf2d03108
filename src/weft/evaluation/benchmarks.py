"""The published evaluations by name: how each is asked, how far it may answer, what scores it, and where that stands.

An entry says how a question becomes a message (the dialect of the system writes it out: that the result is the
published prompt is a test), not where the data are. ``get_benchmark("okvqa").messages("7.jpg", question="...")`` is
ready for ``weft.load(...).chat``, ``.options()`` are its decoding options, ``.metric`` is a metric of ``weft score``;
`benchmarking` puts them together.

Sources: MiniGPT-v2 is Vision-CAIR/MiniGPT-4 at d94738a, ``eval_scripts`` and its ``vqa_datasets.py``
(greedy, repetition penalty 1, fp16). Qwen-Audio is QwenLM/Qwen-Audio at b50fb95, ``eval_audio`` (greedy, base model).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from string import Formatter
from typing import Any, Literal

from weft.conversation import WeftError
from weft.evaluation.published.metrics import published_metric

MINIGPT_V2 = "Vision-CAIR/MiniGPT-4 at d94738a, eval_scripts/{}"
QWEN_AUDIO = "QwenLM/Qwen-Audio at b50fb95, eval_audio/{}"


@dataclass(frozen=True)
class Benchmark:
    """One published evaluation.

    ``text``: the words of the question, with ``{fields}`` of a sample; empty where the task says all. ``figure``: the
    one of ``metric``'s that the system published. ``published``: that figure for the system's own 7B model, in the unit
    of ``figure``, by split; ``doubt`` says where copies of the paper disagree or a set is closed.
    """

    name: str
    title: str
    system: Literal["minigpt_v2", "qwen_audio"]
    media: Literal["image", "audio"]
    metric: str
    figure: str
    max_new_tokens: int
    source: str
    task: str | None = None
    task_fields: tuple[tuple[str, Any], ...] = ()
    text: str = ""
    splits: tuple[str, ...] = ()
    published: tuple[tuple[str, float], ...] = ()
    choices: bool = False  # the answer is chosen among those that a sample brings, by its likelihood
    doubt: str = ""

    def __post_init__(self) -> None:
        published_metric(self.metric)

    @property
    def fields(self) -> tuple[str, ...]:
        """What a sample brings besides its picture or clip."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.text) if name))

    def messages(self, media: Any, **fields: str) -> list[dict[str, Any]]:
        """The request, as `weft.conversation.parse_messages` takes it."""
        if set(fields) != set(self.fields):
            wanted = ", ".join(self.fields) or "nothing"
            raise WeftError(
                f"{self.name} asks with {wanted} besides its {self.media}, not {', '.join(fields) or 'nothing'}"
            )
        content: list[dict[str, Any]] = [{"type": self.media, self.media: media}]
        if self.task is not None:
            content.append({"type": "task", "task": self.task, **dict(self.task_fields)})
        if self.text:
            content.append({"type": "text", "text": self.text.format(**fields)})
        return [{"role": "user", "content": content}]

    def options(self) -> dict[str, Any]:
        """Decoding as published: greedy, so many new tokens. Keywords of `weft.generation.Options`."""
        return {"max_new_tokens": self.max_new_tokens, "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}


def get_benchmark(name: str) -> Benchmark:
    found = BENCHMARKS.get(name.lower().replace("-", "_"))
    if found is None:
        near = get_close_matches(name.lower(), BENCHMARKS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(BENCHMARKS)}"
        raise WeftError(f"there is no benchmark {name!r}; {hint}")
    return found


_SHORT = "Based on the image, respond to this question with a short answer: {question}"
_DISAGREE = "copies of the paper disagree, apparently because versions differ: this is one of two or three figures"


def _picture(name: str, title: str, text: str, metric: str, figure: str, **rest: Any) -> Benchmark:
    usual: dict[str, Any] = {"task": "vqa", "max_new_tokens": 20, "doubt": _DISAGREE}
    usual["source"] = MINIGPT_V2.format("eval_vqa.py")
    return Benchmark(name, title, "minigpt_v2", "image", metric, figure, text=text, **(usual | rest))


def _refer(name: str, title: str, **published: float) -> Benchmark:
    return _picture(
        name,
        title,
        "give me the location of {phrase}",
        "refcoco",
        "minigpt_v2_accuracy",
        task="refer",
        source=MINIGPT_V2.format("eval_ref.py"),
        splits=tuple(published),
        published=tuple(published.items()),
        doubt="figures as others copy them from the paper; annotations hold duplicates (RefCOCO val: 566 of 10,834)",
    )


def _sound(
    name: str, title: str, task: str, metric: str, figure: str, tokens: int, script: str, **rest: Any
) -> Benchmark:
    source = QWEN_AUDIO.format(script)
    return Benchmark(name, title, "qwen_audio", "audio", metric, figure, tokens, source, task=task, **rest)


def _speech(name: str, title: str, language: str, **published: float) -> Benchmark:
    return _sound(
        name,
        title,
        "transcribe",
        "wer",
        "qwen_audio_wer",
        256,
        "evaluate_asr.py",
        task_fields=(("language", language), ("timestamps", False), ("itn", False)),
        splits=tuple(published),
        published=tuple(published.items()),
    )


def _translation(source: str, target: str, published: float) -> Benchmark:
    return _sound(
        f"covost2_{source}_{target}",
        f"CoVoST 2, {source} to {target}",
        "translate",
        "bleu",
        "qwen_audio_bleu",
        256,
        "evaluate_st.py",
        task_fields=(("language", source), ("to", target)),
        splits=("test",),
        published=(("test", published),),
    )


def _labels(name: str, title: str, task: str, tokens: int, script: str, test: float, **rest: Any) -> Benchmark:
    figure = "qwen_audio_accuracy"
    fields: dict[str, Any] = {"splits": ("test",), "published": (("test", test),)} | rest
    return _sound(name, title, task, "accuracy", figure, tokens, script, **fields)


_VIZWIZ = (
    "The question is '{question}' Based on the image, answer the question with a single word or phrase. and reply "
    "'unanswerable' when the provided information is insufficient"
)
_EN = (("language", "en"),)

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        _picture(
            "okvqa",
            "OK-VQA",
            _SHORT,
            "vqa",
            "minigpt_v2_vqa_accuracy",
            splits=("test",),
            published=(("test", 56.9),),
        ),
        _picture(
            "gqa", "GQA", _SHORT, "gqa", "minigpt_v2_gqa_accuracy", splits=("testdev",), published=(("testdev", 60.3),)
        ),
        _picture(
            "vsr",
            "Visual Spatial Reasoning, zero-shot",
            "Based on the image, is this statement true or false? {caption}",
            "vsr",
            "minigpt_v2_vsr_accuracy",
            splits=("test",),
            published=(("test", 60.6),),
        ),
        _picture(
            "iconqa",
            "IconQA, choosing a text",
            _SHORT,
            "iconqa",
            "minigpt_v2_iconqa_accuracy",
            splits=("val",),
            published=(("val", 47.7),),
            choices=True,
            doubt="the original divides the loss by a padded length, so its ranking depends on the batch: this is its "
            "rule for a batch of one; " + _DISAGREE,
        ),
        _picture(
            "vizwiz",
            "VizWiz",
            _VIZWIZ,
            "vizwiz",
            "minigpt_v2_vizwiz_accuracy",
            splits=("val",),
            published=(("val", 30.3),),
            doubt="the script scores val, third-party tables say test-dev; " + _DISAGREE,
        ),
        _picture(
            "hm",
            "Hateful Memes",
            "This is an image writting '{text}'. Is this image hateful? Answer yes or no. Answer:",
            "hm",
            "minigpt_v2_hm_accuracy",
            task=None,
            splits=("dev",),
            published=(("dev", 58.2),),
        ),
        _refer("refcoco", "RefCOCO", val=88.69, testA=91.65, testB=85.33),
        _refer("refcoco_plus", "RefCOCO+", val=79.97, testA=85.12, testB=74.45),
        _refer("refcocog", "RefCOCOg", val=84.44, test=84.66),
        _picture(
            "chair",
            "CHAIR on COCO captions",
            "Please describe this image as detailed as possible.",
            "chair",
            "chair_i",
            task=None,
            max_new_tokens=500,
            source="no code was released: prompt and limit are ours, the metric is LisaAnne/Hallucination's chair.py",
            doubt="the paper's figures are for prompts and lengths that it does not give in full",
        ),
        _speech(
            "librispeech", "LibriSpeech", "en", dev_clean=0.018, dev_other=0.040, test_clean=0.020, test_other=0.042
        ),
        _speech("aishell1", "AISHELL-1", "zh", dev=0.012, test=0.013),
        _speech("aishell2", "AISHELL-2", "zh", mic=0.033, ios=0.031, android=0.033),
        _translation("en", "de", 25.1),
        _translation("de", "en", 33.9),
        _translation("en", "zh", 41.5),
        _translation("zh", "en", 15.7),
        _translation("es", "en", 39.7),
        _translation("fr", "en", 38.5),
        _translation("it", "en", 36.0),
        _sound(
            "clotho",
            "Clotho captions",
            "caption",
            "cider",
            "cider_ptb_like",
            30,
            "evaluate_caption.py",
            task_fields=(("style", "clotho"),),
            splits=("eval",),
            published=(("eval", 0.441),),
            doubt="published with Stanford's tokenizer; SPICE 0.136 and SPIDEr 0.288 need Java and are not made here",
        ),
        _sound(
            "srwt",
            "Industrial data, word times",
            "transcribe",
            "srwt",
            "qwen_audio_aas_seconds",
            256,
            "evaluate_srwt.py",
            task_fields=(("language", "zh"), ("timestamps", True)),
            splits=("test",),
            published=(("test", 0.0515),),
            doubt="the data are closed",
        ),
        _labels("cochlscene", "CochlScene", "scene", 10, "evaluate_scene.py", 0.795),
        _labels("tut2017", "TUT Acoustic Scenes 2017", "scene", 10, "evaluate_scene.py", 0.649),
        _labels("meld", "MELD, emotions", "emotion", 4, "evaluate_emotion.py", 0.557, task_fields=_EN),
        _labels(
            "clothoaqa",
            "ClothoAQA",
            "question",
            4,
            "evaluate_aqa.py",
            0.579,
            task_fields=_EN,
            text="{question}",
            published=(("test", 0.579), ("test, yes or no", 0.749)),
        ),
        _labels("vocalsound", "VocalSound", "vocal_sound", 4, "evaluate_vocal_sound.py", 0.9289, task_fields=_EN),
        _sound(
            "nsynth",
            "NSynth notes",
            "note",
            "nsynth",
            "qwen_audio_qualities_map",
            30,
            "evaluate_note_analysis.py",
            splits=("test",),
            published=(("test, qualities", 0.4742), ("test, instrument", 0.7882)),
        ),
    )
}
