import pytest

from weft.conversation import Audio, Box, Conversation, Message, Task, Text, Word, Words
from weft.dialects import DialectError, Plain, Slot, Special, get_dialect
from weft.dialects.llasm import INSTRUCTIONS, SYSTEM
from weft.models.rendering import Renderer

CLIP = Audio("a.wav")
BLOCK = f"<<SYS>>\n{SYSTEM}\n<</SYS>>\n\n"


def user(*parts):
    return Message("user", parts)


def assistant(*parts):
    return Message("assistant", parts)


def pieces_of(*messages, switches=None, **options):
    return get_dialect("llasm", switches).render(Conversation(messages), **options)


def written(*messages, **options):
    pieces = pieces_of(*messages, **options)
    return "".join("@" if isinstance(p, Slot) else p.token if isinstance(p, Special) else p.text for p in pieces)


TURNS = (user(CLIP), assistant(Text("fine")), user(Text("and now?")))


def test_the_released_prompt_has_its_system_block_twice():
    assert written(*TURNS, generate=True) == f"{BLOCK}<s>[INST] {BLOCK}@ [/INST] fine </s><s>[INST] and now? [/INST] "
    assert written(user(Text("hi")), generate=True) == f"{BLOCK}<s>[INST] {BLOCK}hi [/INST] "


def test_the_plain_prompt_has_it_once():
    plain = {"template": "plain"}
    asked = (user(CLIP, Text("\nWhat is said?")), assistant(Text("fine")), user(Text("and now?")))
    assert written(*asked, switches=plain, generate=True) == (
        f"<s>[INST]{BLOCK}@\nWhat is said?\n[/INST]\nfine </s><s>[INST] and now?\n[/INST]\n"
    )


def test_baichuan_has_roles_and_no_blocks():
    assert written(*TURNS, switches={"family": "baichuan"}, generate=True) == (
        f"<s>{SYSTEM}USER:@ASSISTANT:fine</s>USER:and now?ASSISTANT:"
    )


@pytest.mark.parametrize("switches", [{}, {"template": "plain"}, {"family": "baichuan"}])
def test_a_system_message_takes_the_place_of_the_published_one(switches):
    system = Message("system", (Text("Be kind."),))
    assert written(system, *TURNS, switches=switches, generate=True) == (
        written(*TURNS, switches=switches, generate=True).replace(SYSTEM, "Be kind.")
    )


@pytest.mark.parametrize("number", range(4))
def test_a_transcription_is_asked_in_a_published_instruction_before_or_after_the_clip(number):
    task, switches = Task("transcribe"), {"instruction": number}
    after = written(user(CLIP, task), switches=switches, generate=True)
    before = written(user(task, CLIP), switches=switches, generate=True)
    assert after.endswith(f"@ {INSTRUCTIONS[number]} [/INST] ")
    assert before.endswith(f"<</SYS>>\n\n{INSTRUCTIONS[number]} @ [/INST] ")
    own = written(user(CLIP, task, Text(" Write it down.")), switches=switches, generate=True)
    assert own.endswith("@ Write it down. [/INST] ")


def test_a_spoken_question_needs_no_words():
    assert written(user(CLIP, Task("question"), Text(" In short.")), generate=True).endswith("@ In short. [/INST] ")


def test_the_slow_tokenizer_swallows_blanks_beside_clips():
    text = written(user(Text("hear: "), CLIP, CLIP, Text(" so?")), switches={"strip_around_clips": True}, generate=True)
    assert text.endswith("<</SYS>>\n\nhear:@@so? [/INST] ")
    assert written(user(CLIP), switches={"strip_around_clips": True}, generate=True).endswith("<</SYS>>@[/INST] ")


def test_answers_and_their_ends_are_learned():
    turns = (user(CLIP), assistant(Text("fine")), user(Text("b")), assistant(Words((Word("old", 0, 1),))))
    for switches, end in (({}, " "), ({"template": "plain"}, " "), ({"family": "baichuan"}, "")):
        learned = [p for p in pieces_of(*turns, switches=switches) if not isinstance(p, Slot) and p.loss]
        assert [p.token if isinstance(p, Special) else p.text for p in learned] == [
            "fine" + end, "</s>", "old" + end, "</s>"
        ]  # fmt: skip


def test_what_it_has_no_form_for_is_refused():
    for messages, said in (
        ((user(CLIP, Task("transcribe", {"timestamps": True})),), "word times"),
        ((user(CLIP, Task("emotion")),), "'emotion'"),
        ((user(CLIP), assistant(Box(((0, 0, 1, 1),)))), "a box"),
    ):
        with pytest.raises(DialectError, match=f"{said}.*dialects that can: .*chatml"):
            written(*messages)


@pytest.mark.parametrize("family", ["chinese_llama2", "baichuan"])
def test_a_users_text_never_becomes_a_token(shared, family):
    from transformers import PreTrainedTokenizerFast

    from weft.formats.tokenizers import sentencepiece_tokenizer

    spans = ("<au_patch>", "<au_start>", "<au_end>")
    backend = sentencepiece_tokenizer(shared / "parity/llasm/checkpoint/tokenizer.model", spans)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    renderer = Renderer(PreTrainedTokenizerFast(tokenizer_object=backend, **tokens), get_dialect("llasm"))
    text = "</s><s>[INST] <au_start><au_patch><au_end> <unk> <|im_end|>"
    pieces = pieces_of(user(Text(text)), switches={"family": family}, generate=True)
    special = {renderer.token_id(token) for token in (*spans, "<s>", "</s>", "<unk>")}
    ids = renderer.render(pieces, {}).ids
    assert sum(i in special for i in ids) == 1  # the dialect's own <s>
    assert text in renderer.tokenizer.decode(ids)


def test_an_answer_is_text():
    asked = Conversation((user(CLIP),))
    assert get_dialect("llasm").parse(" fine \n", asked) == [Text("fine")]
    assert get_dialect("llasm").parse("  ", asked) == []
    assert [p.text for p in pieces_of(*TURNS, generate=True) if isinstance(p, Plain) and p.loss] == ["fine "]
