"""A benchmark's request, written out by its system's dialect, is the published prompt."""

import pytest

from weft.conversation import WeftError
from weft.conversation.samples import parse_messages
from weft.dialects import get_dialect
from weft.dialects.base import Plain, Slot, Special
from weft.evaluation.benchmarks import BENCHMARKS, get_benchmark
from weft.evaluation.families import FAMILIES
from weft.evaluation.metrics import METRICS
from weft.generation import Options


def written(name: str, **fields: str) -> str:
    benchmark = get_benchmark(name)
    conversation = parse_messages(benchmark.messages("data:,", **fields))
    pieces = get_dialect(benchmark.system, {}).render(conversation, generate=True)
    shown = {Plain: lambda p: p.text, Special: lambda p: p.token, Slot: lambda p: "@"}
    return "".join(shown[type(p)](p) for p in pieces)


# Asked with {q}; from the released evaluation scripts.
PROMPTS = {
    "okvqa": "[vqa] Based on the image, respond to this question with a short answer: {q}",
    "gqa": "[vqa] Based on the image, respond to this question with a short answer: {q}",
    "iconqa": "[vqa] Based on the image, respond to this question with a short answer: {q}",
    "vsr": "[vqa] Based on the image, is this statement true or false? {q}",
    "vizwiz": "[vqa] The question is '{q}' Based on the image, answer the question with a single word or phrase. and "
    "reply 'unanswerable' when the provided information is insufficient",
    "hm": "This is an image writting '{q}'. Is this image hateful? Answer yes or no. Answer:",
    "refcoco": "[refer] give me the location of {q}",
    "librispeech": "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>",
    "aishell1": "<|startoftranscript|><|zh|><|transcribe|><|zh|><|notimestamps|><|wo_itn|>",
    "covost2_en_zh": "<|startoftranscript|><|en|><|translate|><|zh|><|notimestamps|><|itn|>",
    "srwt": "<|startoftranscript|><|zh|><|transcribe|><|zh|><|timestamps|><|0.00|>",
    "clotho": "<|startofanalysis|><|unknown|><|caption|><|en|><|notimestamps|><|caption_clotho|>",
    "clothoaqa": "<|startofanalysis|><|en|><|question|>{q}<|answer|>",
    "meld": "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|emotion_recognition|>",
    "vocalsound": "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|vocal_classification|>",
    "cochlscene": "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|scene|>",
    "tut2017": "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|scene|>",
    "nsynth": "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|note_analysis|>",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_published_prompt_is_written(name: str) -> None:
    question = "is it a {brace}?"
    got = written(name, **dict.fromkeys(get_benchmark(name).fields, question))
    wanted = PROMPTS[name].replace("{q}", question)
    if get_benchmark(name).system == "minigpt_v2":
        assert got == f"<s><s>[INST] <Img>@</Img> {wanted} [/INST]"
    else:
        assert got == f"@{wanted}"


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))
def test_every_entry_is_whole(benchmark) -> None:
    assert benchmark.figure in METRICS and benchmark.figure in FAMILIES[benchmark.metric].figures
    assert benchmark.source and benchmark.title
    assert Options(**benchmark.options()).max_new_tokens == benchmark.max_new_tokens
    assert written(benchmark.name, **dict.fromkeys(benchmark.fields, "x"))


def test_mistakes_are_said() -> None:
    with pytest.raises(WeftError, match="did you mean 'okvqa'"):
        get_benchmark("okvq")
    with pytest.raises(WeftError, match="okvqa asks with question"):
        get_benchmark("okvqa").messages("a.jpg")
    assert get_benchmark("RefCOCO-plus").name == "refcoco_plus"
