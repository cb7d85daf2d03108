"""The data sets that published recipes name: ``datasets/NAME/train.jsonl``, which the user makes, once, with a command.

Nothing is downloaded. A file that is not there is answered with the command that makes it from the data set's own
files; ``--data NAME=FILE`` says that it lies elsewhere. Samples that weft draws itself (`weft.playground`) are at
``playground/NAME/train.jsonl`` and are made when they are asked for.
"""

from __future__ import annotations

from pathlib import Path

from weft.data.augment import Augment
from weft.playground import tasks
from weft.training.recipe import Source

PLAYED, PLAY_SEED = 240, 1  # samples of each task, and what they follow from

# name -> arguments of `weft data convert`; "" where the layout has no reader and the lines must be written by hand.
READERS = {
    # pictures
    "laion": "webdataset LAION_SHARDS",
    "cc3m": "webdataset CC3M_SHARDS",
    "sbu": "webdataset SBU_SHARDS",
    "grit": "",
    "coco_caption": "coco-captions captions_train2014.json --media COCO",
    "textcaps": "textcaps TextCaps_0.1_train.json --media TEXTVQA",
    "refcoco": "refcoco refcoco/refs.json --annotations instances.json --media COCO --task refer",
    "refcoco_plus": "refcoco refcoco+/refs.json --annotations instances.json --media COCO --task refer",
    "refcocog": "refcoco refcocog/refs.json --annotations instances.json --media COCO --task refer",
    "inv_refcoco": "refcoco refcoco/refs.json --annotations instances.json --media COCO --task identify",
    "inv_refcoco_plus": "refcoco refcoco+/refs.json --annotations instances.json --media COCO --task identify",
    "inv_refcocog": "refcoco refcocog/refs.json --annotations instances.json --media COCO --task identify",
    "visual_genome": "visual-genome region_descriptions.json --media VG --task refer --max-area 16384",
    "flickr_grounded": "flickr30k FLICKR30K_ENTITIES --media FLICKR30K --task grounded_caption",
    "flickr_detection": "flickr30k FLICKR30K_ENTITIES --media FLICKR30K --task detection",
    "vqav2": "vqav2 v2_train2014_questions.json --annotations ANNOTATIONS --media COCO --answers every",
    "okvqa": "okvqa train2014_questions.json --annotations ANNOTATIONS --media COCO --answers every",
    "aokvqa": "aokvqa aokvqa_v1p0_train.json --media COCO --answers every",
    "gqa": "gqa train_balanced_questions.json --media GQA",
    "ocrvqa": "ocrvqa dataset.json --media OCRVQA --split train",
    "llava_conversation": "llava conversation_58k.json --media COCO",
    "llava_detail": "llava detail_23k.json --media COCO",
    "llava_reason": "llava complex_reasoning_77k.json --media COCO",
    "llava_pretrain": "llava blip_laion_cc_sbu_558k.json --media LLAVA_PRETRAIN",
    "llava_instruct": "llava llava_v1_5_mix665k.json --media LLAVA_DATA",
    "multitask_conversation": "",
    "unnatural_instructions": "llama-factory UNNATURAL_AS_ALPACA.json",
    # sound
    "aishell": "aishell data_aishell",
    "librispeech": "librispeech LibriSpeech",
    "magicdata": "",
    "primewords": "",
    "wizardlm_spoken": "llasm WIZARDLM_CONVERSATIONS.json --media CLIPS",
    "sharegpt_spoken": "llasm SHAREGPT_CONVERSATIONS.json --media CLIPS",
    "gpt4llm_spoken": "llasm GPT4LLM_CONVERSATIONS.json --media CLIPS",
    "speech": "librispeech LibriSpeech",
    "word_times_en": "mfa TEXTGRIDS --media LibriSpeech",
    "word_times_zh": "mfa TEXTGRIDS --media data_aishell --language zh",
    "speech_translation": "covost covost_v2.de_en.train.tsv --media CLIPS",
    "sound_caption": "clotho clotho_captions_development.csv --media RECORDINGS",
    "audio_chat": "qwen-audio SFT.txt",
    # text
    "text_chat": "llama-factory CHATS.json",
}


def data(name: str, weight: float = 1.0, augment: Augment | None = None) -> Source:
    """A data set by its name; ``weight``: how often a sample of it is drawn."""
    return Source(path=f"datasets/{name}/train.jsonl", name=name, weight=weight, augment=augment)


def play(name: str, weight: float = 1.0) -> Source:
    """Samples of one task of the playground."""
    return Source(path=f"playground/{name}/train.jsonl", name=name, weight=weight)


def how_to_make(path: str | Path) -> str:
    """What to say of a file ``datasets/NAME/train.jsonl`` that is not there; "" for other files."""
    parts = Path(path).parts
    if len(parts) != 3 or parts[0] != "datasets":
        return ""
    reader = READERS.get(parts[1])
    if reader:
        return f"make it with: weft data convert {reader} -o {path}; or "
    return "weft has no reader for it: write one conversation a line (docs/samples.md); or "


def make_if_played(path: Path) -> bool:
    """Makes a file ``.../playground/TASK/train.jsonl``; False where that is not what ``path`` names."""
    if path.parts[-3:-2] != ("playground",) or path.name != "train.jsonl" or path.parts[-2] not in tasks.TASKS:
        return False
    tasks.write(path.parent.parent, path.parts[-2], PLAYED, PLAY_SEED)
    return True
