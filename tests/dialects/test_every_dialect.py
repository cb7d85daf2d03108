"""What holds for every dialect and any conversation."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_conversations import conversations

from examples import examples
from weft.conversation import TASKS, Audio, Box, Conversation, Image, Message, Task, Text, Word, Words, parse_messages
from weft.dialects import DIALECTS, DialectError, Plain, Slot, Special, get_dialect
from weft.models.rendering import joined

NAMES = sorted(DIALECTS)


def rendered(dialect, conversation, **options):
    try:
        return dialect.render(conversation, **options)
    except DialectError as error:
        assert str(error).count("\n") == 0
        return None


@examples(150)
@given(conversation=conversations())
def test_a_conversation_is_written_or_refused_with_a_sentence(conversation):
    for dialect in map(get_dialect, NAMES):
        specials = set(dialect.special_tokens())
        for pieces in (rendered(dialect, conversation), rendered(dialect, conversation.prompt(), generate=True)):
            if pieces is None:
                continue
            assert all(p.token in specials for p in pieces if isinstance(p, Special)), dialect
            slots = [p for p in pieces if isinstance(p, Slot)]
            assert [s.index for s in slots if s.modality == "image"] == list(range(len(conversation.images))), dialect
            assert [s.index for s in slots if s.modality == "audio"] == list(range(len(conversation.audios))), dialect


@examples(100)
@given(conversation=conversations())
def test_all_of_a_users_text_is_written_as_plain_text(conversation):
    texts = [part.text for part in conversation.parts() if isinstance(part, Text)]
    for dialect in map(get_dialect, NAMES):
        pieces = rendered(dialect, conversation)
        if pieces is not None:
            plain = "".join(p.text for p in pieces if isinstance(p, Plain))
            assert all(text in plain for text in texts), dialect


@examples(100)
@given(conversation=conversations())
def test_any_text_is_parsed_into_parts(conversation):
    for dialect in map(get_dialect, NAMES):
        pieces = rendered(dialect, conversation)
        text = "".join(p.token if isinstance(p, Special) else p.text for p in pieces or [] if not isinstance(p, Slot))
        for some in (text, text[len(text) // 2 :]):
            assert all(isinstance(part, Text | Box | Words) for part in dialect.parse(some, conversation.prompt()))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_dialect_cannot_write_names_those_that_can(name):
    dialect = get_dialect(name)
    for task in sorted(set(TASKS) - dialect.tasks):
        part = Image("i.png") if "image" in TASKS[task].media else Audio("a.wav")
        conversation = Conversation((Message("user", (part, Task(task), Text("x"))),))
        with pytest.raises(DialectError, match="chatml"):
            dialect.render(conversation, generate=True)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_on_answers_and_never_on_questions(name):
    medium = Image("i.png") if "image" in get_dialect(name).modalities else Audio("a.wav")
    turns = (
        Message("user", (medium, Text("QUESTION"))),
        Message("assistant", (Text("ANSWER"),)),
        Message("user", (Text("QUESTION again"),)),
        Message("assistant", (Text("ANSWER again"),)),
    )
    pieces = get_dialect(name).render(Conversation(turns))
    assert [p.text.strip() for p in pieces if isinstance(p, Plain) and p.loss] == ["ANSWER", "ANSWER again"]
    assert sum(isinstance(p, Special) and p.loss for p in pieces) == 2  # the token that ends each answer


@examples(100)
@given(conversation=conversations(), learn=st.lists(st.booleans(), min_size=8, max_size=8))
def test_what_is_not_to_be_learned_is_written_the_same_and_taught_nowhere(conversation, learn):
    marked = tuple(replace(m, learn=flag) for m, flag in zip(conversation.messages, learn, strict=False))
    nothing = replace(conversation, messages=tuple(replace(m, learn=False) for m in conversation.messages))
    answers = replace(
        conversation, messages=tuple(replace(m, learn=m.role != "assistant") for m in conversation.messages)
    )
    for dialect in map(get_dialect, NAMES):
        plain, muted = (rendered(dialect, c) for c in (conversation, replace(conversation, messages=marked)))
        if plain is None:
            assert muted is None, dialect
            continue
        assert [untold(p) for p in joined(muted)] == [untold(p) for p in joined(plain)], dialect
        assert not any(taught(p) for p in dialect.render(nothing)), dialect
        assert not any(taught(p) for p in dialect.render(answers)), dialect


def untold(piece):
    return piece if isinstance(piece, Slot) else replace(piece, learn=True)


def taught(piece):
    return not isinstance(piece, Slot) and piece.loss and piece.learn


@pytest.mark.parametrize("name", NAMES)
def test_only_the_answer_that_says_so_is_not_learned(name):
    turns = tuple(
        message
        for i, learn in enumerate((True, False, True))
        for message in (Message("user", (Text("QUESTION"),)), Message("assistant", (Text(f"ANSWER {i}"),), learn))
    )
    pieces = get_dialect(name).render(Conversation(turns))
    assert [p.text.strip() for p in pieces if isinstance(p, Plain) and taught(p)] == ["ANSWER 0", "ANSWER 2"]
    assert sum(isinstance(p, Special) and taught(p) for p in pieces) == 2


@pytest.mark.parametrize("turns", [("user",), ("user", "assistant", "user")])
def test_the_tags_of_a_question_are_learned_with_its_answer_alone(turns):
    asked = Message("user", (Audio("a.wav"), Task("transcribe", {"language": "en"})))
    messages = [asked if role == "user" else Message(role, (Text("hello"),)) for role in turns]
    pieces = get_dialect("qwen_audio").render(Conversation(tuple(messages)))
    tags = [taught(p) for p in pieces if isinstance(p, Special) and p.token == "<|transcribe|>"]
    assert tags == [True, False][-len(tags) :]


@pytest.mark.parametrize(
    ("name", "switches", "text", "box"),
    [
        ("chatml", {}, "<|p100|><|p200|><|p100|><|p300|>", (0.1001, 0.2002, 0.1001, 0.3003)),
        ("chatml", {"coordinates": "text"}, "[100, 200, 100, 300]", (0.1, 0.2, 0.1, 0.3)),
        ("minigpt_v2", {}, "{<50><30><50><36>}", (0.5, 0.3, 0.5, 0.36)),
        ("internvl", {}, "<box>[[500, 300, 500, 360]]</box>", (0.5, 0.3, 0.5, 0.36)),
    ],
)
def test_a_thin_box_of_a_model_stays_a_box_and_can_be_handed_back(name, switches, text, box):
    """Few coordinates write a thin thing as a line, which the published MiniGPT-v2 takes for a box."""
    dialect = get_dialect(name, switches)
    asked = Conversation((Message("user", (Image("i.png"), Task("refer"), Text("the post"))),))
    assert dialect.parse(text, asked) == [Box((box,), "the post", 0)] and not dialect.malformed(text, asked)
    said = [*asked.messages, Message("assistant", tuple(dialect.parse(text, asked))), Message("user", (Text("and?"),))]
    assert parse_messages(said).messages == tuple(said)
    narrow = Message("assistant", (Box(((box[0], 0.2, box[0] + 1e-4, 0.3),), "the post"),))
    pieces = dialect.render(Conversation((*asked.messages, narrow)))
    written = "".join(p.token if isinstance(p, Special) else p.text for p in pieces if taught(p))
    for stop in dialect.stop_tokens():
        written = written.replace(stop, "")
    (found,) = dialect.parse(written, asked)
    assert isinstance(found, Box) and found.boxes[0][0] == found.boxes[0][2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("role", "part", "said"),
    [
        ("assistant", Task("vqa"), "no place for a task in a message of the assistant|cannot write the task"),
        ("assistant", Image("i.png"), "an image"),
        ("assistant", Audio("a.wav"), "a clip"),
        ("user", Words((Word("a", 0, 1),)), "word times"),
        ("system", Image("i.png"), "an image"),
    ],
)
def test_a_part_in_a_message_that_cannot_hold_it_is_refused(name, role, part, said):
    turns = {"user": Message("user", (Text("hi"),)), "assistant": Message("assistant", (Text("ho"),))}
    turns[role] = Message(role, (part,))
    order = sorted(turns.values(), key=lambda m: ("system", "user", "assistant").index(m.role))
    with pytest.raises(DialectError, match=said):
        get_dialect(name).render(Conversation(tuple(order)))


def test_unknown_names_are_named():
    with pytest.raises(DialectError, match="there are chatml"):
        get_dialect("chatlm")
    with pytest.raises(DialectError, match="has no switch 'colour'"):
        get_dialect("chatml", {"colour": 1})
    with pytest.raises(DialectError, match="box_bins"):
        get_dialect("chatml", {"box_bins": "many"})


SWITCHED = [
    ("chatml", {}),
    ("chatml", {"coordinates": "text", "system": "Be kind."}),
    ("minigpt_v2", {"doubled_bos": False}),  # the released inference differs from its training by one <s>
    ("qwen_audio", {}),
    ("llava", {}),
    ("llava", {"template": "hf"}),
    ("internvl", {}),
    ("internvl", {"system": None}),
    ("qwen2_audio", {}),
    ("llasm", {}),
    ("llasm", {"template": "plain"}),
    ("llasm", {"family": "baichuan", "strip_around_clips": True}),
]


@examples(100)
@given(conversation=conversations())
def test_a_training_sample_begins_with_the_prompt(conversation):
    task = conversation.prompt().messages[-1].task
    for name, switches in SWITCHED:
        dialect = get_dialect(name, switches)
        pieces = rendered(dialect, conversation)
        prompt = rendered(dialect, conversation.prompt(), generate=True)
        predicts = name == "qwen_audio" and task is not None and task.get("language", "en") is None
        if pieces is not None and prompt is not None and not predicts:
            asked, learned = joined(prompt), joined(pieces)
            assert learned[: len(asked)] == asked, dialect


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("asked", "mark"),
    [
        ((Image("i.png"), Task("refer"), Text("the cat")), Box(((0.1, 0.1, 0.5, 0.5),), "the cat", 0)),
        ((Audio("a.wav"), Task("transcribe", {"language": "en", "timestamps": True})), Words((Word("cat", 0, 1),), 0)),
    ],
    ids=["boxes", "word times"],
)
def test_what_a_dialect_says_its_answers_hold_it_writes(name, asked, mark):
    dialect = get_dialect(name)
    wrote = rendered(dialect, Conversation((Message("user", asked), Message("assistant", (mark,)))))
    assert (wrote is not None) == (type(mark) in dialect.marks)


def test_an_error_names_only_dialects_that_can():
    hears = Message("user", (Audio("a.wav"), Task("transcribe", {"language": "en", "timestamps": True})))
    with pytest.raises(DialectError, match="cannot write word times; dialects that can: chatml, qwen_audio$"):
        get_dialect("llasm").render(Conversation((hears,)), generate=True)
    draws = Conversation((Message("user", (Text("?"),)), Message("assistant", (Box(((0, 0, 1, 1),)),))))
    with pytest.raises(DialectError, match="cannot write a box; dialects that can: chatml, minigpt_v2, internvl$"):
        get_dialect("llava").render(draws)
