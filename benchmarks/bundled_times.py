"""Speech whose words have the times that the ear itself gives them, for the recipe `bundled`.

    python benchmarks/bundled_times.py DATA [--limit 3000] [--model bundled]

DATA/speech/train.jsonl has espeak's own times. What the model reads are those of its ear (`encoders.alignment`), some
60 ms from these: learning from espeak's, it sees a copy go wrong in every second word. So an answer's words get the
ear's times where it heard them as they were said, and keep espeak's where not. Writes DATA/timed/train.jsonl.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

import weft
from weft.conversation import Conversation, Word, Words, read_samples, write_samples
from weft.evaluation.text import normalized
from weft.media import load_audio
from weft.models.transcript import timed_words, words_of
from weft.parts import sources

TOGETHER = 16


@torch.inference_mode()
def heard(model: weft.Model, waves: list[np.ndarray], texts: list[str]) -> list[list[Word]]:
    """What the ear writes of clips, word by word."""
    net, kind = model.model, model.model.sound_kind
    clips = [torch.from_numpy(kind.prepare(wave, kind.window(0, len(wave)))) for wave in waves]
    lengths = torch.tensor([len(clip) for clip in clips])
    features, _ = net.audio(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), lengths)
    told = net.audio_connector.told(features)
    found: list[list[Word]] = []
    rows = (x.tolist() for x in (told.there_Nt, told.ids_Nt, told.starts_Nt, told.ends_Nt))
    for there, ids, starts, ends in zip(*rows, strict=True):
        roles = net.audio_connector.roles[torch.tensor(ids)].tolist()
        first = there.index(True)
        words, _ = words_of(range(first, first + sum(there)), roles)
        states_TD = features[len(found), : first * net.audio_connector.merge]
        said = ["".join(texts[ids[t]] for t in word if ids[t] < len(texts)) for word in words]
        when = timed_words(words, roles, starts, ends, states_TD)
        seconds = [(kind.seconds * thing.start, kind.seconds * thing.end) for thing in when]
        found.append([Word(text, *extent) for text, extent in zip(said, seconds, strict=True)])
    return found


def retimed(said: Words, heard: list[Word]) -> Words:
    """The words that were said, with the times of those that were heard so."""
    names = [[normalized(word.text) for word in words] for words in (said.words, heard)]
    words = list(said.words)
    for at, other, size in SequenceMatcher(None, *names, autojunk=False).get_matching_blocks():
        for n in range(size):
            own = heard[other + n]
            words[at + n] = replace(words[at + n], start=round(own.start, 2), end=round(own.end, 2))
    return replace(said, words=tuple(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--model", default="bundled")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = weft.load(given.model)
    theirs = AutoTokenizer.from_pretrained(sources()["audio"])
    texts = theirs.batch_decode([[n] for n in range(theirs.eos_token_id)])
    samples = read_samples(given.data / "speech" / "train.jsonl")[: given.limit]
    out: list[Conversation] = []
    apart: list[float] = []
    for begin in range(0, len(samples), TOGETHER):
        chosen = samples[begin : begin + TOGETHER]
        waves = [load_audio(sample.audios[0].source) for sample in chosen]
        for sample, words in zip(chosen, heard(model, waves, texts), strict=True):
            asked, answer = sample.messages
            (said,) = answer.parts
            assert isinstance(said, Words)
            timed = retimed(said, words)
            apart += [abs(a.start - b.start) for a, b in zip(said.words, timed.words, strict=True)]
            out.append(replace(sample, messages=(asked, replace(answer, parts=(timed,)))))
        if begin % (TOGETHER * 20) == 0:
            print(f"{len(out):,} of {len(samples):,}, {1000 * np.mean(apart):.0f} ms from espeak's", flush=True)
    (given.data / "timed").mkdir(exist_ok=True)
    write_samples(given.data / "timed" / "train.jsonl", out)
    print(f"{len(out):,} samples; begins {1000 * np.mean(apart):.0f} ms from espeak's in the mean")


if __name__ == "__main__":
    main()
