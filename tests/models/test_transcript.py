"""What Whisper writes of a clip reaches the language model as the language model's own words."""

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperModel

import weft
from weft.conversation import Audio, Conversation, Message, WeftError, Word, Words
from weft.media import log_mel
from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.compose import compose
from weft.models.config import AudioSection
from weft.models.encoders import sound_kind
from weft.models.encoders.transcript import ENGLISH, LOUD, TOLD, sounding, timed_tokens, writing
from weft.models.transcript import BEGINS, timed_words
from weft.teaching.labels import Labels
from weft.teaching.media import listening_labels, moments_of
from weft.training.features import fingerprint

SECTION = tiny.audio("transcript", {"kind": "transcript", "merge": 5, "vocab_size": 20, "heads": 2})
OURS = bytes_tokenizer()
SOUND = {**tiny.WHISPER, "vocab_size": len(OURS) + 1, "num_mel_bins": 80, "eos_token_id": len(OURS)}
SOUND |= {"begin_suppress_tokens": None, "decoder_start_token_id": 3, "init_std": 0.5, "max_target_positions": 40}
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CONNECTOR = {"kind": "transcript", "merge": 5, "vocab_size": len(OURS) + 1, "heads": 4, "places": 0.5}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A Whisper that writes bytes, and a language model that reads them."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    WhisperForConditionalGeneration(WhisperConfig(**SOUND)).save_pretrained(folder / "whisper")
    theirs = bytes_tokenizer()
    theirs.add_special_tokens({"eos_token": "<|endoftranscript|>"})
    theirs.save_pretrained(folder / "whisper")
    language = LlamaConfig(vocab_size=len(OURS), num_key_value_heads=2, tie_word_embeddings=True, **TEXT)
    AutoModelForCausalLM.from_config(language).save_pretrained(folder / "language")
    OURS.save_pretrained(folder / "language")
    return folder


def woven_of(folder, **connector):
    audio = {"source": str(folder / "whisper"), "kind": "transcript", "connector": CONNECTOR | connector}
    dialect = {"name": "chatml", "switches": {"window_seconds": 1.0}}
    return compose(audio=audio, language=str(folder / "language"), dialect=dialect)


@pytest.fixture(scope="module")
def woven(parts):
    return woven_of(parts)


@pytest.fixture(scope="module")
def timed(parts):
    return woven_of(parts, timed=True)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(16000 * seconds)).astype("float32")


def two_words() -> Conversation:
    words = Words((Word("one", 0.05, 0.2), Word("two", 0.25, 0.5)), 0)
    return Conversation((Message("user", (Audio((sound(0.6), 16000)),)), Message("assistant", (words,))))


def features(kind, seconds: float, seed: int = 0) -> torch.Tensor:
    wave = sound(seconds, seed)
    return torch.from_numpy(kind.prepare(wave, kind.window(0, len(wave))))


def test_the_number_of_tokens_tells_how_many_follow_the_sound():
    assert [sounding(n + writing(n)) for n in range(400)] == list(range(400))


@pytest.mark.parametrize("with_times", [False, True])
def test_a_clip_in_a_batch_is_as_alone(with_times, timed):
    model = timed[0] if with_times else tiny.model(audio=SECTION)
    kind = model.sound_kind
    sizes = (3360, 9000, 16000)  # 21 frames: the last state has one
    clips = [features(kind, samples / 16000, seed) for seed, samples in enumerate(sizes)]
    lengths = torch.tensor([len(clip) for clip in clips])
    heard, rows = model.audio(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths)
    for clip, features_TC, size in zip(clips, heard, rows.tolist(), strict=True):
        alone, _ = model.audio(clip[None], torch.tensor([len(clip)]))
        torch.testing.assert_close(features_TC[:size], alone[0], rtol=1e-5, atol=1e-5)
    together = model.embed_audio(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths)
    alone = [model.embed_audio(clip[None]) for clip in clips]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    assert [len(each) for each in alone] == [kind.windows(samples)[0].tokens for samples in sizes]


@pytest.mark.parametrize("whole", [True, False])
def test_it_writes_what_whisper_writes(woven, whole):
    """Beside the library's own forward over the clip and the silence behind it, one greedy token after another."""
    model, _ = woven
    kind, end = model.sound_kind, SOUND["eos_token_id"]
    wave = sound(0.3)
    wave[-400:] = 0.0  # else the last frames see the end of the clip, which silence alone does not
    published = WhisperModel(WhisperConfig(**SOUND)).eval()
    published.load_state_dict(model.audio.tower.state_dict())
    model.audio.whole = whole
    ids = [SOUND["decoder_start_token_id"]]
    with torch.inference_mode():
        mel = torch.from_numpy(log_mel(wave, 80, pad_to=16000)).T[None]
        heard = published.encoder(mel).last_hidden_state
        for _ in range(writing(3)):
            state = published.decoder(input_ids=torch.tensor([ids]), encoder_hidden_states=heard).last_hidden_state
            ids.append(int((state[0, -1] @ published.decoder.embed_tokens.weight.T)[: end + 1].argmax()))
        own = torch.from_numpy(kind.prepare(wave, kind.window(0, len(wave))))
        rows, lengths = model.audio(own[None], torch.tensor([30]))
    written = rows[0, 3 * 5 :: 5, -TOLD:]
    assert lengths.tolist() == [len(rows[0])] and len(written) == writing(3)
    assert written[:, 0].tolist() == [1.0] * writing(3)
    assert (256 * written[:, 1] + written[:, 2]).tolist() == ids[1:]
    starts, ends = (256 * written[:, at] + written[:, at + 1] for at in (3, 5))
    told = ids[1:].index(end) + 1 if end in ids[1:] else len(written)
    assert (starts[1:told] >= starts[: told - 1]).all() and (ends >= starts).all() and ends.max() <= 15
    others = [number for number in range(TOLD) if number != LOUD]
    assert not rows[0, :15, -TOLD:][:, others].any() and rows[0, :15, LOUD - TOLD].min() >= 0
    assert rows[0, :14, LOUD - TOLD].max() > 0.9 and rows[0, 14, LOUD - TOLD] == 0  # it ends with silence
    torch.testing.assert_close(rows[0, :15, :-TOLD], heard[0, :15], rtol=1e-3, atol=1e-3)


def test_a_new_model_reads_the_transcription_as_if_it_had_been_typed(woven):
    model, processor = woven
    mel = features(model.sound_kind, 0.3)[None]
    with torch.inference_mode():
        rows, embedded, _ = model.audio_features(mel)
        ids, *when = (256 * rows[0, 15::5, at] + rows[0, 15::5, at + 1] for at in (1 - TOLD, 3 - TOLD, 5 - TOLD))
        started, ended = (model.places["audio"].at(model, 0.02 * each) for each in when)
    texts = [OURS.decode([i]) if i < SOUND["eos_token_id"] else "\n" for i in ids.long().tolist()]
    table, own = model.get_input_embeddings().weight, processor.renderer.encode_text
    placed = started + ended.roll(16, 1)  # half of the width
    assert placed.any()
    for text, found in zip(texts, embedded[0, 3:] - placed, strict=True):
        if "\ufffd" not in text:
            torch.testing.assert_close(found, table[own(text)].mean(0))


def said(text: str, states: list[tuple[int, int]], sounds: int) -> torch.Tensor:
    """Features of a clip of which a text was written, byte by byte, and its end."""
    rows = torch.zeros(sounds + writing(sounds), 5, 16 + TOLD)
    ids = OURS(text).input_ids
    for place, (number, (start, end)) in enumerate(zip(ids, states, strict=True)):
        rows[sounds + place, 0, -TOLD:] = torch.tensor([1, 0, number, 0, start, 0, end])
    rows[sounds + len(ids) :, 0, -TOLD:-4] = torch.tensor([1.0, *divmod(SOUND["eos_token_id"], 256)])
    return rows.flatten(0, 1)[None]


def test_words_stand_between_their_times_as_an_answer_writes_them(timed):
    """A state is 20 ms. What is no letter says nothing of when, and the comma is part of its word."""
    model, processor = timed
    sounds = 20
    states = [(0, 1), (2, 13), (13, 30), (30, 31), (31, 36), (36, 43), (43, 45)]
    with torch.no_grad():
        embedded = model.audio_connector.read(said(" ab, cd.", states, sounds), model)[0]
    answer = Words((Word(" ab,", 0.0, 0.26), Word(" cd.", 0.6, 0.86)), 0)
    asked = Message("user", (Audio((sound(0.6), 16000)),))
    encoded = processor.encode(Conversation((asked, Message("assistant", (answer,)))))
    ids = [i for i, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != -100]
    table = model.get_input_embeddings().weight.detach()
    assert len(embedded) == timed_tokens(sounds + writing(sounds)) and not embedded[:sounds].any()
    written = (torch.cdist(embedded[sounds:], table).argmin(1)).tolist()
    moments = [i for i in written if i >= len(OURS)]
    assert moments == [i for i in ids if i >= len(OURS) and processor.tokenizer.decode([i])[:3] in ("<|t", "<|f")]
    assert OURS.decode([i for i in written if i < len(OURS)]).rstrip("\n") == " ab, cd."
    assert [i >= len(OURS) for i in written[:12]] == [True] * 2 + [False] * 3 + [True] * 4 + [False] * 3


def test_what_a_clip_is_filled_up_with_says_nothing_of_when():
    heard_TD = torch.ones(33, 4 + TOLD)
    heard_TD[14:19, LOUD - TOLD] = 0
    found = []
    for more in range(8):
        filled_TD = torch.nn.functional.pad(heard_TD, (0, 0, 0, more))
        things = timed_words([[0], [1]], [BEGINS, BEGINS], [0, 10], [10, 24], filled_TD)
        found.append([(thing.start, thing.end) for thing in things])
    assert found == [[(0, 14), (19, 33)]] * 8


def test_where_the_room_does_not_do_the_last_words_have_no_times(timed):
    model, processor = timed
    text = " a" * 8  # a space and a letter
    with torch.no_grad():
        embedded = model.audio_connector.read(said(text, [(n, n + 1) for n in range(16)], 10 * 3), model)[0]
        table = model.get_input_embeddings().weight
        roomy = torch.cdist(embedded[30:], table).argmin(1).tolist()
        embedded = model.audio_connector.read(said(text[:14], [(n, n + 1) for n in range(14)], 20), model)[0]
        tight = torch.cdist(embedded[20:], table).argmin(1).tolist()
    assert sum(i >= len(OURS) for i in roomy) == 8 * 4
    assert sum(i >= len(OURS) for i in tight) == 4 * ((38 - 14) // 4) == 24
    for written in (roomy, tight):
        assert OURS.decode([i for i in written if i < len(OURS)]).rstrip("\n") in (text, text[:14])


def test_sounds_stand_among_the_words_and_words_where_nobody_speaks_are_left_out(parts, monkeypatch):
    monkeypatch.setattr("weft.models.sound_events.PIECES", 8)
    monkeypatch.setattr("weft.models.sound_events.BEHIND", 16)
    model, processor = woven_of(parts, timed=True, events=1)
    connector, sounds = model.audio_connector, 30
    events = connector.events
    given = said(" ab cd", [(0, 5), (5, 20), (90, 95), (95, 110), (110, 120)], sounds)
    table = model.get_input_embeddings().weight.detach()

    def written() -> str:
        with torch.no_grad():
            embedded = connector.read(given, model)[0, sounds:]
        ids = torch.cdist(embedded, table).argmin(1).tolist()
        return OURS.decode([i for i in ids if i < len(OURS)]).rstrip("\n")

    assert written() == " ab cd"  # a new layer hears speech everywhere
    events.learn(["bell"], processor.renderer.encode_text)
    events.inward[0, 0] = events.told[0, 0] = events.told[1, 1] = 20.0
    events.inward[1, 1] = 20.0
    events.around[:, 0, len(events.around[0, 0]) // 2] = 1.0
    events.across[:] = torch.eye(len(events.across))
    events.bias[:] = -5.0
    given[0, 30:60, 0], given[0, 90:120, 1] = 1.0, 1.0  # a bell, then speech
    assert written() == " ( bell, 0.5 seconds) cd"


def test_times_follow_the_sound_alone(timed):
    model, processor = timed
    sample = two_words()
    encoded = processor.encode(sample)
    (span,) = encoded.spans
    assert span.length == timed_tokens(6 + writing(6)) and model.sound_kind.timed(span.length) == 6
    for sounds in range(1, 200):
        assert model.sound_kind.timed(timed_tokens(sounds + writing(sounds))) == sounds
    assert np.isinf(moments_of(sample, span, processor)[6:]).all()


def test_what_is_written_has_no_moment_and_is_not_taught_as_heard(woven):
    model, processor = woven
    sample = two_words()
    encoded = processor.encode(sample)
    (span,) = encoded.spans
    follow = model.sound_kind.timed(span.length)
    assert follow == 6 and span.length == follow + writing(follow)
    moments = moments_of(sample, span, processor)
    np.testing.assert_allclose(moments[:follow], 0.05 + 0.1 * np.arange(6))
    assert np.isinf(moments[follow:]).all()
    heard = listening_labels(sample, encoded, processor).heard
    assert (heard[:follow] >= 0).all() and (heard[follow:] == -100).all()
    assert Labels(processor, True, True)(sample, encoded).gazes
    with torch.inference_mode():
        places = model.places["audio"].embeddings(model, 20, torch.tensor([span.length, 20]))
        assert places[0, :follow].any() and not places[0, follow:].any()
        assert places[1, : model.sound_kind.timed(20)].any()


def test_how_tokens_are_spelled_is_kept_and_not_trained(woven, tmp_path):
    model, processor = woven
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = weft.load(tmp_path, dtype="bfloat16").model
    assert loaded.audio_connector.spelling.dtype == torch.int64
    assert loaded.audio_connector.spelling.equal(model.audio_connector.spelling)
    assert "audio_connector.spelling" not in dict(model.named_parameters())


def test_the_language_is_chosen_where_there_are_several():
    section = SECTION.model_copy(
        update={
            "config": {**SECTION.config, "vocab_size": 51865, "decoder_start_token_id": 50258, "eos_token_id": 50257},
            "connector": SECTION.connector.model_copy(update={"vocab_size": 51865}),
        }
    )
    tower = sound_kind(section).build().eval()
    ids = tower.prompt(torch.zeros(2, 10, 16))
    assert ids.shape == (2, 4) and ids[0, [0, 2, 3]].tolist() == [50258, 50359, 50363]
    assert 50259 <= int(ids[0, 1]) <= 50357


def test_a_connector_that_cannot_read_is_refused():
    with pytest.raises(WeftError, match="kind transcript with vocab_size 20, and it has linear with 0"):
        sound_kind(tiny.audio("transcript"))
    with pytest.raises(WeftError, match=f"vocab_size {ENGLISH}"):
        config = {"vocab_size": ENGLISH}
        sound_kind(AudioSection(kind="transcript", config=config, connector=SECTION.connector))


def test_features_of_other_groups_are_other_features(parts):
    towers = [woven_of(parts, merge=merge)[0] for merge in (5, 4)]
    first, second = (fingerprint(model.audio, model.config.audio_section, False) for model in towers)
    assert first != second
