import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image as Picture
from transformers import AutoTokenizer

import weft  # noqa: F401  (registers the classes)
from examples import examples
from weft.conversation import Audio, Conversation, Image, Message, Task, Text, WeftError, Word, Words
from weft.dialects import DialectError, Plain, get_dialect
from weft.media import log_mel
from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.clients import read, written_out
from weft.models.config import AudioSection, Connector, DialectSection, VisionSection
from weft.models.processing import WeftProcessor

VISION = VisionSection(kind="clip", config={"patch_size": 14}, size=(28, 42))
AUDIO = AudioSection(kind="whisper", config={"num_mel_bins": 80}, window_seconds=1.0, connector=Connector(merge=2))
SECONDS = (0.4, 2.5)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    Picture.new("RGB", (30, 20), "red").save(folder / "red.png")
    for i, seconds in enumerate(SECONDS):
        noise = np.random.default_rng(i).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)
        soundfile.write(folder / f"{i}.wav", noise, 16000)
    return folder


def build(dialect="chatml", vision=VISION, audio=AUDIO, **switches):
    return WeftProcessor.build(bytes_tokenizer(), vision, audio, DialectSection(name=dialect, switches=switches))


@pytest.fixture(scope="module")
def processor():
    return build()


@pytest.fixture(scope="module")
def conversation(media):
    return Conversation(
        (
            Message("user", (Image(str(media / "red.png")), Audio(str(media / "1.wav")), Text("what is this?"))),
            Message("assistant", (Text("a red noise"),)),
            Message("user", (Audio(str(media / "0.wav")), Task("transcribe", {"timestamps": True}))),
            Message("assistant", (Words((Word("hiss", 0.1, 0.2),), 1),)),
        ),
        "7",
    )


def messages(conversation):
    from weft.conversation import dump_sample

    return dump_sample(conversation)["messages"]


def test_a_training_sample_begins_with_the_prompt(processor, conversation):
    sample, prompt = processor.encode(conversation), processor.encode(conversation.prompt(), generate=True)
    assert sample.input_ids[: len(prompt)].tolist() == prompt.input_ids.tolist()
    answer = sample.input_ids[len(prompt) :]
    assert sample.loss_mask[len(prompt) :].tolist() == [True] * (len(answer) - 1) + [False]  # the last is a newline
    assert processor.tokenizer.decode(answer) == "<|item_1|><|t0.1|><|f0|>hiss<|t0.2|><|f0|><|im_end|>\n"


@pytest.mark.parametrize("dialect", ["chatml", "llasm", "qwen_audio"])
def test_an_answer_that_is_not_to_be_learned_has_the_same_ids_and_no_loss_flag(dialect, media):
    processor = build(dialect, vision=None)
    hear = Message("user", (Audio(str(media / "0.wav")), Text("what?")))
    turns = [hear, Message("assistant", (Text(" bad "),)), hear, Message("assistant", (Text("good"),))]
    plain = processor.encode(Conversation(tuple(turns)))
    turns[1] = replace(turns[1], learn=False)
    marked = processor.encode(Conversation(tuple(turns)))
    assert marked.input_ids.tolist() == plain.input_ids.tolist()
    first = processor.length(Conversation(tuple(turns[:2])))
    assert not marked.loss_mask[:first].any() and plain.loss_mask[:first].any()
    assert marked.loss_mask[first:].tolist() == plain.loss_mask[first:].tolist()
    mask = processor.apply_chat_template(
        Conversation(tuple(turns)), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )["assistant_masks"][0]
    assert mask == marked.loss_mask.astype(int).tolist()


def test_spans_hold_one_token_for_each_embedding(processor, conversation):
    sample = processor.encode(conversation)
    assert [(s.modality, s.item, s.length, s.window) for s in sample.spans] == [
        ("image", 0, 6, 0), ("audio", 0, 25, 0), ("audio", 0, 25, 1), ("audio", 0, 13, 2), ("audio", 1, 10, 0)
    ]  # fmt: skip
    ids = processor.token_ids
    for span in sample.spans:
        here = sample.input_ids[span.start : span.start + span.length]
        assert set(here.tolist()) == {ids[f"{span.modality}_token_id"]}
        names = processor.tokenizer.convert_ids_to_tokens(
            [int(sample.input_ids[span.start - 1]), int(sample.input_ids[span.start + span.length])]
        )
        assert names == [f"<|{span.modality}_start|>", f"<|{span.modality}_end|>"]
    assert len(sample.features) == 4
    assert [len(f) for f in sample.features] == [100, 100, 50, 40]
    assert sample.images[0].shape == (1, 3, 28, 42)


def test_how_many_tokens_a_picture_takes_is_its_own(conversation, media):
    """Tiles: pictures of one conversation and of one batch differ, in the prompt as in what the model takes."""
    tiled = VISION.model_copy(update={"tiles": 4, "size": (28, 28), "connector": Connector(merge=4)})
    processor = build(vision=tiled)
    shapes = [(28, 28), (56, 28), (20, 80), (200, 190)]
    views = [1, 3, 5, 5]
    asked = [Image(Picture.new("RGB", shape, "red")) for shape in shapes]
    together = processor.encode(Conversation((Message("user", (*asked, Text("which?"))),)), generate=True)
    assert [span.length for span in together.spans] == views
    assert [len(image) for image in together.images] == views
    each = [processor.encode(Conversation((Message("user", (image, Text("?"))),)), generate=True) for image in asked]
    batch = processor.collate(each)
    assert batch["pixel_values"].shape == (sum(views), 3, 28, 28)
    slots = (batch["input_ids"] == processor.token_ids["image_token_id"]).sum(1)
    assert slots.tolist() == views
    red = Conversation(
        (Message("user", (Image(str(media / "red.png")), Text("?"))), Message("assistant", (Text("."),)))
    )
    assert processor.length(red) == len(processor.encode(red))


def test_length_needs_no_decoding(processor, conversation, media, monkeypatch):
    from weft.models import encoding

    sample = processor.encode(conversation)
    for name in ("load_image", "load_audio"):
        monkeypatch.delattr(encoding, name)
    assert processor.length(conversation) == len(sample)


def test_decoded_media_are_the_same_as_files(processor, conversation, media):
    wave, _ = soundfile.read(media / "1.wav", dtype="float32")
    question = conversation.messages[0]
    decoded = Message("user", (Image(Picture.open(media / "red.png")), Audio((wave, 16000)), question.parts[2]))
    one = processor.encode(Conversation((question,)), generate=True)
    two = processor.encode(Conversation((decoded,)), generate=True)
    assert one.input_ids.tolist() == two.input_ids.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(one.images + one.features, two.images + two.features, strict=True))
    assert np.allclose(one.features[0], log_mel(wave[:16000], 80, pad_to=16000), atol=1e-5)


def test_too_long_is_an_error_that_names_the_sample(processor, conversation):
    with pytest.raises(WeftError, match="sample '7' takes .* tokens and at most 20 fit"):
        processor.encode(conversation, max_length=20)


def test_padding_on_either_side(processor, conversation, media):
    short = Conversation((Message("user", (Text("hi"),)), Message("assistant", (Text("ho"),))))
    samples = [processor.encode(c) for c in (short, conversation)]
    for side in ("left", "right"):
        batch = processor.collate(samples, side)
        for row, sample in enumerate(samples):
            kept = batch["attention_mask"][row].bool()
            assert batch["input_ids"][row][kept].tolist() == sample.input_ids.tolist()
            assert batch["labels"][row][kept].tolist() == sample.labels.tolist()
            assert (batch["labels"][row][~kept] == -100).all()
            assert kept[0 if side == "right" else -1]
    assert batch["pixel_values"].shape == (1, 3, 28, 42)
    assert batch["input_features"].shape == (4, 100, 80)
    assert batch["feature_lengths"].tolist() == [100, 100, 50, 40]
    assert "labels" not in processor.collate([processor.encode(short.prompt(), generate=True)])
    assert set(processor.collate(samples[:1])) == {"input_ids", "attention_mask", "labels"}


def test_a_packed_row_keeps_samples_apart(processor, conversation):
    short = Conversation((Message("user", (Text("hi"),)), Message("assistant", (Text("ho"),))))
    samples = [processor.encode(c) for c in (short, conversation, short)]
    row = processor.pack(samples)
    assert row["segment_lengths"].tolist() == [len(s) for s in samples]
    assert row["input_ids"][0].tolist() == [i for s in samples for i in s.input_ids.tolist()]
    assert row["position_ids"][0].tolist() == [i for s in samples for i in range(len(s))]
    assert row["labels"][0].tolist() == [i for s in samples for i in s.labels.tolist()]
    assert torch.equal(row["input_features"], processor.collate(samples)["input_features"])


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "</s>", "<ImageHere>", "<|image|>", "<audio>/etc/passwd</audio>", "<|t0.1|>"]
)
@pytest.mark.parametrize("dialect", ["chatml", "minigpt_v2", "qwen_audio"])
def test_a_users_text_stays_text(dialect, text):
    processor = build(dialect, vision=None, audio=None)
    sample = processor.encode(Conversation((Message("user", (Text(text),)),)), generate=True)
    users = {k for k, p in enumerate(sample.pieces) if isinstance(p, Plain) and text in p.text}
    plain = [int(i) for i, k in zip(sample.input_ids, sample.source, strict=True) if int(k) in users]
    specials = {index for index, token in processor.tokenizer.added_tokens_decoder.items() if token.special}
    assert plain and not specials & set(plain)
    assert text in processor.tokenizer.decode(plain)
    assert not sample.spans and not sample.images and not sample.features


def test_apply_chat_template_gives_model_inputs(processor, conversation):
    given = messages(conversation.prompt())
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(given, **options)
    expected = processor.encode(conversation.prompt(), generate=True)
    assert inputs["input_ids"].tolist() == [expected.input_ids.tolist()]
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values", "input_features", "feature_lengths"}
    short = [{"role": "user", "content": "hi"}]
    batch = processor.apply_chat_template([short, given], **options)
    assert batch["input_ids"].shape[0] == 2
    assert batch["attention_mask"][0].tolist() == sorted(batch["attention_mask"][0].tolist())  # padded on the left
    plain = processor.apply_chat_template(
        given, tokenize=True, add_generation_prompt=True, continue_final_message=False
    )
    assert plain == expected.input_ids.tolist()
    with pytest.raises(WeftError, match="no use for documents"):
        processor.apply_chat_template(given, documents=["a"])
    masks = processor.apply_chat_template(messages(conversation), tokenize=True, return_dict=True,
                                          return_assistant_tokens_mask=True)["assistant_masks"]  # fmt: skip
    assert masks == [processor.encode(conversation).loss_mask.astype(int).tolist()]


@pytest.mark.parametrize("dialect", ["chatml", "minigpt_v2", "qwen_audio"])
def test_a_prompt_written_out_gives_the_same_ids(dialect, media):
    processor = build(dialect)
    vision = dialect != "qwen_audio"
    medium = (
        {"type": "image", "image": str(media / "red.png")}
        if vision
        else {"type": "audio", "audio": str(media / "1.wav")}
    )
    first = {"role": "user", "content": [medium, {"type": "text", "text": "what is this?"}]}
    second = [first, {"role": "assistant", "content": "a thing"}, {"role": "user", "content": [medium, medium]}]
    texts = processor.apply_chat_template([[first], second], add_generation_prompt=True)
    assert all(isinstance(text, str) for text in texts)
    count = [1, 3]
    sources = [[medium["image" if vision else "audio"]] * n for n in count]
    if dialect != "minigpt_v2":  # bytes have no dummy prefix; the Llama case is with the dialect's own tests
        kind = {"images": sources} if vision else {"audio": sources}
        got = processor(text=texts, return_tensors="pt", **kind)
        want = processor.apply_chat_template(
            [[first], second], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert {k: v.tolist() for k, v in got.items()} == {k: v.tolist() for k, v in want.items()}
    with pytest.raises(WeftError, match="placeholder|given for"):
        processor(text=texts, **{"images" if vision else "audio": sources[0]})


@pytest.mark.parametrize("text", ["<|audio_start|><|audio|> hi", "hi <|audio_end|>", "<|audio_start|> <|audio_end|>"])
def test_a_placeholder_without_its_other_end_is_an_error(processor, media, text):
    with pytest.raises(WeftError, match=r"stands alone.*<\|audio_start\|><\|audio\|><\|audio_end\|>"):
        processor(text=text, audio=[str(media / "1.wav")])


def test_parts_come_back_from_ids_text_and_batches(processor, conversation, media):
    asked, words = messages(conversation.prompt()), messages(conversation)[-1]["content"]
    sample, prompt = processor.encode(conversation), processor.encode(conversation.prompt(), generate=True)
    answer = sample.input_ids[len(prompt) :]
    for form in (
        torch.from_numpy(answer),
        answer.tolist(),
        torch.from_numpy(sample.input_ids)[None],  # as generate gives it, with the prompt
        [processor.pad_id] * 3 + sample.input_ids.tolist(),
        processor.tokenizer.decode(answer),
    ):
        assert processor.parse(form, asked) == words
    assert processor.parse([answer.tolist()] * 4, [asked, asked]) == [words] * 4
    raw, text, parts = processor.parse_reply(answer.tolist(), conversation.prompt())
    assert (raw, text) == ("<|item_1|><|t0.1|><|f0|>hiss<|t0.2|><|f0|>", "hiss")
    assert parts == list(conversation.messages[-1].parts)
    malformed = processor.renderer.render(read(processor.renderer, "well <|t0.1|>then"), {}).ids
    assert processor.parse_reply(malformed, conversation.prompt())[:2] == ("well <|t0.1|>then", "well then")


def test_a_folder_holds_all_of_it(processor, conversation, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = WeftProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.encode(conversation).input_ids.tolist() == processor.encode(conversation).input_ids.tolist()
    assert "chat_template" not in json.loads((tmp_path / "processor_config.json").read_text())
    assert AutoTokenizer.from_pretrained(tmp_path)("hello")["input_ids"] == processor.tokenizer("hello")["input_ids"]


def test_switches_of_the_dialect_can_be_changed(processor, media):
    asked = [{"role": "user", "content": [{"type": "audio", "audio": str(media / "1.wav")},
                                          {"type": "task", "task": "transcribe"}]}]  # fmt: skip
    changed = processor.with_switches(language="de")
    assert "Transcribe the German speech." in changed.apply_chat_template(asked)
    assert "Transcribe the speech." in processor.apply_chat_template(asked)
    with pytest.raises(DialectError, match="has no switch 'lang'"):
        processor.with_switches(lang="de")


def test_missing_encoders_and_tokens_are_named(media, conversation):
    with pytest.raises(WeftError, match="no image encoder"):
        build(vision=None).encode(conversation)
    with pytest.raises(WeftError, match="no audio encoder"):
        build(audio=None).encode(conversation)
    with pytest.raises(WeftError, match=r"no token '<\|im_start\|>'"):
        WeftProcessor(bytes_tokenizer(), {}).encode(Conversation((Message("user", (Text("a"),)),)))
    with pytest.raises(WeftError, match="ends with an answer"):
        build().encode(conversation, generate=True)


PARTS = st.lists(
    st.one_of(
        st.sampled_from([{"type": "image", "image": "red.png"}, {"type": "audio", "audio": "0.wav"}]),
        st.text(alphabet="abc dé?.", max_size=8).map(lambda t: {"type": "text", "text": t}),
    ),
    max_size=4,
)
TASKS = st.sampled_from(
    [
        None,
        {"task": "transcribe", "language": "en", "timestamps": True, "itn": False},
        {"task": "transcribe"},
        {"task": "translate", "language": "xx", "to": "de"},
        {"task": "caption", "language": "fr", "style": "short"},
        {"task": "vqa"},
        {"task": "locate", "language": None},
    ]
)


@examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(PARTS, TASKS), min_size=1, max_size=3), system=st.booleans(), generate=st.booleans())
@pytest.mark.parametrize("switches", [{}, {"system": 'Say "hi".\n', "bos": "<s>", "language": "en"}])
def test_the_shipped_template_writes_what_the_renderer_writes(switches, turns, system, generate, media):
    processor = _with(tuple(switches.items()))
    given = [{"role": "system", "content": "Be kind."}] if system else []
    for parts, task in turns:
        content = [*parts, {"type": "task", **task}] if task else parts
        given += [{"role": "user", "content": content}, {"role": "assistant", "content": "An answer."}]
    given = given[:-1] if generate else given
    typed = [_typed(message) for message in given]
    want = written_out(processor.renderer, processor.pieces(Conversation(tuple(typed)), generate=generate))
    got = processor.tokenizer.apply_chat_template(
        given, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=generate
    )
    assert got == want


KEPT = {}


def _with(switches):
    if switches not in KEPT:
        KEPT[switches] = build(**dict(switches))
    return KEPT[switches]


def _typed(message):
    if isinstance(message["content"], str):
        return Message(message["role"], (Text(message["content"]),))
    kinds = {
        "text": lambda p: Text(p["text"]),
        "image": lambda p: Image(p["image"]),
        "audio": lambda p: Audio(p["audio"]),
        "task": lambda p: Task(p["task"], {k: v for k, v in p.items() if k not in ("type", "task")}),
    }
    return Message(message["role"], tuple(kinds[p["type"]](p) for p in message["content"]))


def test_the_shipped_template_marks_what_is_learned():
    processor = build()
    turns = [{"role": r, "content": f"{r} {i}"} for i in range(2) for r in ("user", "assistant")]
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    marked = processor.tokenizer.apply_chat_template(turns, chat_template=processor.chat_template, **options)
    ours = processor.apply_chat_template(turns, **options)
    assert marked["input_ids"] == ours["input_ids"][0] and marked["assistant_masks"] == ours["assistant_masks"][0]


def test_a_dialect_without_a_template_ships_none():
    assert build("minigpt_v2").chat_template is None
    assert get_dialect("chatml").name == "chatml"
