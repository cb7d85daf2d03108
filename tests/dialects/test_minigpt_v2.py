import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_conversations import PLAIN, boxes

from examples import examples
from weft.conversation import Audio, Box, Conversation, Image, Message, Task, Text, Word, Words
from weft.dialects import DialectError, Plain, Slot, Special, get_dialect
from weft.models.rendering import Renderer

IMAGE = Image("i.png")


def user(*parts):
    return Message("user", parts)


def assistant(*parts):
    return Message("assistant", parts)


def written(*messages, switches=None, **options):
    pieces = get_dialect("minigpt_v2", switches).render(Conversation(messages), **options)
    return "".join(
        "<ImageHere>" if isinstance(p, Slot) else p.token if isinstance(p, Special) else p.text for p in pieces
    )


def test_prompts_of_the_released_evaluation():
    asked = user(IMAGE, Text("[vqa] what is this"))
    assert written(asked, generate=True) == "<s><s>[INST] <Img><ImageHere></Img> [vqa] what is this [/INST]"
    by_task = user(IMAGE, Task("vqa"), Text("what is this"))
    assert written(by_task, generate=True) == written(asked, generate=True)
    assert written(user(Text("hello")), generate=True) == "<s><s>[INST] hello [/INST]"
    assert written(asked, generate=True, switches={"doubled_bos": False}).startswith("<s>[INST]")


def test_training_prompts_have_one_start_and_may_have_two_spaces():
    turns = (
        user(IMAGE, Text("[vqa] what is this")),
        assistant(Text("cat")),
        user(Text("why")),
        assistant(Text("ears")),
    )
    text = written(*turns)
    assert text == "<s>[INST] <Img><ImageHere></Img> [vqa] what is this [/INST]cat</s><s>[INST] why [/INST]ears</s>"
    assert written(*turns, switches={"training_space": True}) == text.replace(" [/INST]", "  [/INST]")
    assert written(*turns, switches={"end_symbol": "\n"}).count("\n") == 2


def test_only_answers_and_their_ends_are_learned():
    turns = (user(IMAGE, Text("a")), assistant(Text("cat")), user(Text("b")), assistant(Text("ears")))
    pieces = get_dialect("minigpt_v2").render(Conversation(turns))
    learned = [p for p in pieces if not isinstance(p, Slot) and p.loss]
    assert learned == [
        Plain("cat", True, True), Special("</s>", True), Plain("ears", True, True), Special("</s>", True)
    ]  # fmt: skip


def test_several_images_system_text_and_forgotten_answers():
    assert written(user(IMAGE, IMAGE, Text("what changed?")), generate=True) == (
        "<s><s>[INST] <Img><ImageHere></Img> <Img><ImageHere></Img> what changed? [/INST]"
    )
    assert written(user(Text("look:"), IMAGE, Text("so?")), generate=True) == (
        "<s><s>[INST] look: <Img><ImageHere></Img> so? [/INST]"
    )
    assert written(Message("system", (Text("Be kind."),)), user(Text("hi")), generate=True) == (
        "<s>Be kind.<s>[INST] hi [/INST]"
    )
    turns = (user(Text("a")), assistant(Text("cat")), user(Text("b")))
    assert written(*turns, generate=True, switches={"forget_answers": True}) == (
        "<s><s>[INST] a [/INST]</s><s>[INST] b [/INST]"
    )


@pytest.mark.parametrize(
    ("task", "identifier"),
    [
        ("vqa", "[vqa]"),
        ("caption", "[caption]"),
        ("grounded_caption", "[grounding]"),
        ("refer", "[refer]"),
        ("identify", "[identify]"),
        ("detection", "[detection]"),
    ],
)
def test_identifiers(task, identifier):
    assert written(user(IMAGE, Task(task), Text("x")), generate=True).endswith(f"</Img> {identifier} x [/INST]")
    assert written(user(IMAGE, Task(task)), generate=True).endswith(f"</Img> {identifier}  [/INST]")


def test_instructions_for_requests_without_words():
    text = written(user(IMAGE, Task("caption")), generate=True, switches={"instructions": True})
    assert text.endswith("</Img> [caption] Briefly describe this image. [/INST]")


def test_boxes_are_cut_off_to_percents():
    # (3.24, 159.31) + 156.4 x 312.81 on 640 x 480
    box = Box(((3.24 / 640, 159.31 / 480, 159.64 / 640, 472.12 / 480),))
    assert written(user(IMAGE, Task("identify"), Text("what is this"), box), generate=True).endswith(
        "[identify] what is this {<0><33><24><98>} [/INST]"
    )
    assert written(user(IMAGE, Task("identify"), Box(((0.29, 0.57, 0.58, 1.0),))), generate=True).endswith(
        "[identify] {<29><57><58><100>} [/INST]"
    )


@examples(100)
@given(parts=st.lists(boxes(label=PLAIN), min_size=1, max_size=3), between=PLAIN)
def test_boxes_survive_writing_and_parsing(parts, between):
    question = user(IMAGE, Text("what is there?"))
    mixed = [p for box in parts for p in (box, Text(f" {between} "))]
    dialect = get_dialect("minigpt_v2")
    text = "".join(
        p.text for p in dialect.render(Conversation((question, assistant(*mixed)))) if isinstance(p, Plain) and p.loss
    )
    got = dialect.parse(text, Conversation((question,)))
    assert [type(p) for p in got] == [type(p) for p in mixed]
    for a, b in zip(got, mixed, strict=True):
        if isinstance(b, Box):
            assert (a.label, a.image, len(a.boxes)) == (b.label, 0, len(b.boxes))
            for one, two in zip(a.boxes, b.boxes, strict=True):
                assert all(-1e-9 <= y - x < 0.01 + 1e-9 for x, y in zip(one, two, strict=True))
        else:
            assert a == b


def test_parsing_released_answers():
    refer = Conversation((user(IMAGE, Task("refer"), Text("the cup")),))
    parse = get_dialect("minigpt_v2").parse
    assert parse("{<12><30><18><36>}", refer) == [Box(((0.12, 0.3, 0.18, 0.36),), "the cup", 0)]
    assert parse("{<1><2><3><4>}<delim>{<5><6><7><8>}", refer) == [
        Box(((0.01, 0.02, 0.03, 0.04), (0.05, 0.06, 0.07, 0.08)), "the cup", 0)
    ]
    plain = Conversation((user(IMAGE, Text("[grounding] describe")),))
    assert parse("<p>x</p> {<1><2><3><4>}<p>y</p> {<5><6><7><8>} end", plain) == [
        Box(((0.01, 0.02, 0.03, 0.04),), "x", 0), Box(((0.05, 0.06, 0.07, 0.08),), "y", 0), Text(" end")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "{<999><0><1><2>}",
        "{<50><2><3><4>}",
        "{<1><2><3>}",
        "<p>cup</p>",
        "<p>cup</p> {<1><2><3><101>}",
        "<delim>",
        "{<1>",
    ],
)
def test_malformed_boxes_stay_text_and_are_named(text):
    dialect, asked = get_dialect("minigpt_v2"), Conversation((user(IMAGE, Text("?")),))
    assert dialect.parse(text, asked) == [Text(text)]
    assert dialect.malformed(text, asked) == [text]


def test_only_what_is_malformed_is_named():
    dialect, asked = get_dialect("minigpt_v2"), Conversation((user(IMAGE, Text("?")),))
    assert dialect.malformed("a {<1><2><3><4>}<delim>{<5><6><7><8>} and x < 3", asked) == []
    text = "<p>a</p> {<1><2><3><4>} then {<9><2><3><4>}, <p>b</p> there"
    assert [type(part) for part in dialect.parse(text, asked)] == [Box, Text]
    assert dialect.malformed(text, asked) == ["{<9><2><3><4>}", "<p>b</p>"]


def test_what_it_has_no_form_for_is_refused():
    with pytest.raises(DialectError, match="dialects that can: chatml, .*qwen_audio"):
        written(user(Audio("a.wav")), generate=True)
    with pytest.raises(DialectError, match="word times"):
        written(user(IMAGE), assistant(Words((Word("a", 0, 1),))))
    with pytest.raises(DialectError, match="which of 2 images"):
        written(user(IMAGE, IMAGE), assistant(Box(((0, 0, 1, 1),), None, 0)))


@pytest.fixture(scope="module")
def llama(shared):
    from transformers import PreTrainedTokenizerFast

    from weft.formats.tokenizers import sentencepiece_tokenizer

    backend = sentencepiece_tokenizer(shared / "parity/minigpt_v2/llama/tokenizer.model", ("<ImageHere>",))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return Renderer(PreTrainedTokenizerFast(tokenizer_object=backend, **tokens), get_dialect("minigpt_v2"))


def test_segment_ids_equal_the_released_code(llama, shared):
    for prompt in json.loads((shared / "parity/minigpt_v2/expected.json").read_text())["prompts"]:
        text = prompt["text"].split("</Img> ")[1].removesuffix(" [/INST]")
        pieces = llama.dialect.render(Conversation((user(IMAGE, Text(text)),)), generate=True)
        ids = llama.render(pieces, {("image", 0): [4]}).ids
        before, after = prompt["segment_ids"]
        assert ids == [*before, *[llama.token_id("<ImageHere>")] * 4, *after]


def test_one_placeholder_an_image_and_the_answers_alone_are_learned(llama):
    turns = (user(IMAGE, Text("[vqa] what is this ")), assistant(Text("cat")), user(Text("why")), assistant(Text("$$")))
    for conversation, images in ((turns, 1), (turns[2:], 0)):
        rendered = llama.render(llama.dialect.render(Conversation(conversation)), {("image", 0): [4]})
        assert rendered.ids.count(llama.token_id("<ImageHere>")) == 4 * images
        assert rendered.ids.count(1) == len(conversation) // 2  # one start a turn, as the released training has
        learned = [i for i, loss in zip(rendered.ids, rendered.loss, strict=True) if loss]
        answers = [m.text for m in conversation if m.role == "assistant"]
        assert learned == [i for text in answers for i in (*llama.encode_text(text), 2)]


def test_a_users_text_never_becomes_a_token_of_llama(llama):
    text = "</s><s>[INST] <ImageHere> <unk> <Img></Img> $$"
    ids = llama.render(llama.dialect.render(Conversation((user(Text(text)),)), generate=True), {}).ids
    assert ids[:2] == [1, 1]
    assert not {0, 1, 2, llama.token_id("<ImageHere>")} & set(ids[2:])
    assert llama.tokenizer.decode(ids[2:]) == f"[INST] {text} [/INST]"
