"""Greedy answers in fp32: weft's own `generate` against weft's local engine and vLLM.

python compare.py make FOLDER     in weft's environment: writes the models and the answers expected of them
python compare.py vllm FOLDER     in vLLM's environment: asks vLLM itself and compares (exit status 1 on a difference)
python compare.py serve FOLDER    in vLLM's environment: asks `weft serve --engine vllm` over HTTP and compares
python compare.py plain FOLDER    in vLLM's environment: asks vLLM's own server, which knows the dialect chatml

Small random models, one for each dialect; an adapter on one of them; weft's own model, `bundled`; and imports of the
published layouts in ../shared/parity, which lies beside the checkout. Names after FOLDER choose among `MODELS`; with
`serve`, NAME=VALUE behind them is an engine argument of vLLM's, such as tensor_parallel_size=2.
"""

import importlib.util
import io
import json
import socket
import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2 as httpx
import numpy as np
import openai
import soundfile
import torch
from PIL import Image

import weft
from weft.conversation import Words, parse_messages
from weft.formats.llasm import import_llasm
from weft.formats.minigpt_v2 import import_minigpt_v2
from weft.formats.qwen_audio import import_qwen_audio
from weft.generation import Options
from weft.generation.batch import Row
from weft.models.adapter_folder import write_adapter
from weft.models.adapters import is_adapter
from weft.training.gated import switch

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
SIGLIP = {"kind": "siglip", "config": {"hidden_size": 32, "image_size": 32, "patch_size": 8, **SMALL}}
CONV = {"kind": "conv", "config": {"channels": [8, 16, 16, 16], "heads": 2}, "options": {"size": (32, 32)}}
PLACES = {"connector": {"places": True}}  # embeddings of tokens that name places are added to those of media
WHISPER = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "num_mel_bins": 16}
LANGUAGE = {"hidden_size": 64, "num_key_value_heads": 1, "max_position_embeddings": 512, **SMALL}
BLOCKS = {"connector": {"kind": "mlp", "merge": 4, "grid": True}}
# Three tiles and the whole at most: how many tokens a picture takes depends on its shape.
TILES = {"kind": "internvit", "config": SIGLIP["config"], "options": {"tiles": 3}, **BLOCKS}
ENDS = {"boundaries": True}  # learned embeddings at the start and end tokens of clips
LLAMA = {"model_type": "llama"}
MODELS = {
    "siglip-qwen2": (SIGLIP | BLOCKS, {}, {"model_type": "qwen2"}),
    "conv-llama-tied": (CONV | PLACES, {}, {"model_type": "llama", "tie_word_embeddings": True}),
    "tiles-ends-qwen2": (TILES, ENDS, {"model_type": "qwen2"}),
    "minigpt_v2": (SIGLIP | BLOCKS, None, LLAMA, "minigpt_v2"),
    "llasm": (None, {}, LLAMA, "llasm"),
    "qwen_audio": (None, ENDS, LLAMA, "qwen_audio"),
    "llava": (SIGLIP | BLOCKS, None, LLAMA, "llava"),
    "internvl": (TILES, None, {"model_type": "qwen2"}, "internvl"),
    "qwen2_audio": (None, {"kind": "qwen2_audio"}, {"model_type": "qwen2"}, "qwen2_audio"),
    "adapter": (SIGLIP | BLOCKS, {}, LLAMA),  # LoRA on queries and values, its base inside
    "bundled": (),  # weft's own model, on pretrained parts
    "imported-minigpt-v2": (),
    "imported-llasm": (),
    "imported-qwen-audio": (),
}
PARITY = Path(__file__).parents[3] / "shared" / "parity"
SPEECH, SPOKEN = Path(weft.__file__).parent / "serving" / "page" / "example.flac", 200
TIMED = {"type": "task", "task": "transcribe", "language": "en", "timestamps": True}


def picture(seed, width=50):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, width, 3), dtype=np.uint8))


def sound(seconds, seed, rate=16000):  # of 16 bits, so that a WAV file holds it as it is
    return np.random.default_rng(seed).normal(0, 3000, round(seconds * rate)).astype(np.int16) / np.float32(32768), rate


CASES = {
    "text only": ["Say something."],
    "one image": [picture(0), "What is this?"],
    "another image": [picture(1), "What is this?"],
    "one clip": [sound(0.7, 0), "What is this?"],
    "another clip": [sound(0.7, 1), "What is this?"],
    "image and clip": [picture(0), sound(0.7, 0), "And both?"],
    "clip, words, image": [sound(0.7, 0), "then", picture(0), "?"],
    "two clips, 16 and 22 kHz": [sound(0.5, 2), sound(1.3, 3, 22050), "The same?"],
    "two images": [picture(0), picture(1), "The same?"],
    "a clip of three windows": [sound(4.4, 4), "What is this?"],
    "a wide and a tall image": [picture(2, 120), picture(3, 17), "Which is wider?"],
}


def part(value, http):
    """A part as weft takes it, or as a chat request over HTTP carries it."""
    kind = "text" if isinstance(value, str) else "image" if isinstance(value, Image.Image) else "audio"
    if kind == "text" or not http:
        return {"type": kind, kind: value}
    file = io.BytesIO()
    if kind == "image":
        value.save(file, "PNG")
        url = "data:image/png;base64," + b64encode(file.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": url}}
    soundfile.write(file, *value, format="WAV", subtype="PCM_16")
    return {"type": "input_audio", "input_audio": {"data": b64encode(file.getvalue()).decode(), "format": "wav"}}


def chats(http=False, cases=tuple(CASES)):
    return [[{"role": "user", "content": [part(value, http) for value in CASES[case]]}] for case in cases]


def able(processor):
    """The cases whose media the model takes, and its dialect as many of."""
    found = []
    for case, messages in zip(CASES, chats(), strict=True):
        with suppress(weft.WeftError):
            processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
            found.append(case)
    return found


def make(folder, *parts):
    adapter, kit = folder.name == "adapter", folder.name.removeprefix("imported-")
    if kit != folder.name:
        imported(kit, folder)
    else:
        model, processor = composed(*parts) if parts else own()
        place = folder / "base" if adapter else folder
        model.save_pretrained(place)
        processor.save_pretrained(place)
        if adapter:
            adapt(model, folder)
            processor.save_pretrained(folder)
    whole = weft.load(str(folder), dtype="float32")
    expected = {}
    cases = able(whole.processor)
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    for case, messages in zip(cases, chats(cases=cases), strict=True):
        inputs = whole.processor.apply_chat_template(messages, **options)
        out = whole.model.generate(
            **inputs, max_new_tokens=32, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        ids = out.sequences[0, -len(out.logits) :].tolist()
        scores = [row[0].log_softmax(-1)[i].item() for row, i in zip(out.logits, ids, strict=True)]
        expected[case] = {"prompt": inputs["input_ids"][0].tolist(), "ids": ids, "scores": scores}
    (folder / "expected.json").write_text(json.dumps(expected))
    if Words in whole.processor.dialect.marks and whole.processor.audio is not None:
        reply = whole.chat(
            [{"role": "user", "content": [{"type": "audio", "audio": str(SPEECH)}, TIMED]}], max_new_tokens=SPOKEN
        )
        (folder / "words.json").write_text(json.dumps([[w.text, w.start, w.end] for p in reply.words for w in p.words]))
    different = len({tuple(e["ids"]) for e in expected.values()})
    local = together(whole, chats(cases=cases))
    same = sum(ids == e["ids"] for ids, e in zip(local, expected.values(), strict=True))
    print(f"{folder.name}: {different} different answers to {len(expected)} questions; {same} the local engine's")
    return len(expected) - same


def together(whole, asked):
    """The ids of weft's local engine, which answers all of them as one batch."""
    batch = whole.batch(len(asked), 1 << 16, whole.embedder())
    rows = [Row(whole.prepare(parse_messages(messages)), Options(32), 32) for messages in asked]
    for row in rows:
        batch.add(row)
    while len(batch):
        batch.step()
    return [row.ids for row in rows]


def own():
    whole = weft.load("bundled", dtype="float32")
    if whole.model.gate is not None:
        switch(whole.model, False)  # as vLLM has it
    return whole.model, whole.processor


def imported(kit, folder):
    """An import of the released layout: small random weights, and the published tokenizer where the kit has it."""
    source = PARITY / kit.replace("-", "_")
    if kit == "minigpt-v2":
        import_minigpt_v2(
            source / "eva_vit_g.pth", source / "llama", source / "minigptv2_checkpoint.pth", folder, "float32"
        )
    elif kit == "llasm":
        import_llasm(source / "checkpoint", source / "whisper", folder, "float32")
    else:
        spec = importlib.util.spec_from_file_location("parity_weights", PARITY / "weights.py")
        spec.loader.exec_module(weights := importlib.util.module_from_spec(spec))
        facts = json.loads((source / "full_vocabulary" / "expected.json").read_text())
        with TemporaryDirectory() as published:
            weights.write(Path(published), source / "full_vocabulary", facts["weight_salt"])
            import_qwen_audio(Path(published), folder, "float32")


def adapt(model, folder):
    """LoRA on the queries and values of the base in ``folder``, large enough that answers are others."""
    draw, tensors = torch.Generator().manual_seed(1), {}
    for name, weight in model.named_parameters():
        if name.startswith("language_model.") and name.endswith(("q_proj.weight", "v_proj.weight")):
            path = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            tensors[f"{path}A.weight"] = torch.randn(4, weight.shape[1], generator=draw)
            tensors[f"{path}B.weight"] = torch.randn(weight.shape[0], 4, generator=draw) / 8
    targets = r"language_model.*\.[qv]_proj"
    fields = {"base_model_name_or_path": "base", "r": 4, "lora_alpha": 4, "target_modules": targets}
    write_adapter(folder, tensors, fields)
    model.config.save_pretrained(folder)


def composed(vision, sound, language, dialect="chatml"):
    sound = None if sound is None else dict(sound)
    kind = {"kind": sound.pop("kind")} if sound and "kind" in sound else {}
    merging = {"merge": 4, "places": bool(vision) and vision["connector"].get("places", False)}
    audio = {"config": WHISPER, "connector": merging, "options": {"window_seconds": 2.0, **(sound or {})}, **kind}
    switches = {"window_seconds": 2.0} if dialect == "chatml" else {}
    model, processor = weft.compose(
        vision=vision,
        audio=None if sound is None else audio,
        language={"config": LANGUAGE | language},
        dialect={"name": dialect, "switches": switches},
    )
    with torch.no_grad():  # a random model answers alike whatever it is asked: larger weights, and a head not flat
        for weight in model.language_model.model.layers.parameters():
            weight.mul_(6 if weight.ndim == 2 else 1)
        head = model.get_output_embeddings().weight
        head.copy_(0.1 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    return model, processor


def prompt(processor, messages):
    """What weft hands to vLLM: the ids with one slot a medium, and the media."""
    asked = parse_messages(messages)
    media = {"image": [i.source for i in asked.images], "audio": [a.source for a in asked.audios]}
    slots = {(modality, i): [1] for modality, items in media.items() for i in range(len(items))}
    ids = processor.renderer.render(processor.pieces(asked, generate=True), slots).ids
    return {"prompt_token_ids": ids, "multi_modal_data": {m: items for m, items in media.items() if items}}


def serve(folder, *_):
    from vllm import LLM, SamplingParams

    if is_adapter(str(folder)):
        print(f"{folder.name}: an adapter, which vLLM takes merged; `serve` asks it")
        return 0
    options = {"max_model_len": 512, "limit_mm_per_prompt": {"image": 2, "audio": 2}, "gpu_memory_utilization": 0.05}
    llm = LLM(str(folder), dtype="float32", enforce_eager=True, num_gpu_blocks_override=256, **options)
    greedy = SamplingParams(temperature=0, max_tokens=32, logprobs=0)
    processor = weft.WeftProcessor.from_pretrained(folder)
    expected = json.loads((folder / "expected.json").read_text())
    prompts, wrong = [prompt(processor, messages) for messages in chats(cases=expected)], 0
    runs = {
        "ids and media, one by one": [llm.generate(p, greedy, use_tqdm=False)[0] for p in prompts],
        "ids and media, as a batch": llm.generate(prompts, greedy, use_tqdm=False),
    }
    if processor.chat_template is not None:
        runs["chat, the folder's template"] = llm.chat(chats(http=True, cases=expected), greedy, use_tqdm=False)
    for run, outputs in runs.items():
        off, same = 0.0, 0
        for (case, want), out in zip(expected.items(), outputs, strict=True):
            got = out.outputs[0]
            if (list(out.prompt_token_ids), list(got.token_ids)) != (want["prompt"], want["ids"]):
                print(case, want["prompt"], list(out.prompt_token_ids), want["ids"], list(got.token_ids), sep="\n  ")
                continue
            steps = zip(got.logprobs, want["ids"], want["scores"], strict=True)
            apart = max(abs(step[i].logprob - score) for step, i, score in steps)
            off, same = max(off, apart), same + (apart < 1e-3)  # the same ids alone can be chance
        print(f"{folder.name}, {run}: {same} of {len(expected)} equal, log-probabilities within {off:.0e}", flush=True)
        wrong += len(expected) - same
    return wrong


OPTIONS = ("gpu_memory_utilization=0.2", "enforce_eager=true", "max_model_len=512", "distributed_executor_backend=uni")


@contextmanager
def served(folder, *options):
    """A client of the server, which ends as it does for SIGTERM."""
    command = [sys.executable, "-c", "from weft.cli import main; main()", "serve", folder, "--port", "0", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        lines = (json.loads(line) for line in server.stderr if line.startswith("{"))
        address = next(line["address"] for line in lines if line["event"] == "listening")
        with httpx.Client(base_url=address, timeout=600) as client:
            yield client
    finally:
        server.terminate()
        print(f"the server ended with {server.wait(60)}")


def ask(client, model, messages, **fields):
    asked = {"model": model, "messages": messages, "max_tokens": 32, "temperature": 0, "logprobs": True, **fields}
    answer = client.post("/v1/chat/completions", json=asked)
    return answer.json() if answer.status_code == 200 else {"status": answer.status_code, **answer.json()}


def over_http(folder, *_):
    processor, wrong = weft.WeftProcessor.from_pretrained(folder), 0
    options = [word for option in OPTIONS for word in ("--vllm", option)]
    expected = json.loads((folder / "expected.json").read_text())
    asked_for = folder.name if folder.name == "bundled" else folder  # weft's own by its name, as users write it
    with served(asked_for, "--engine", "vllm", "--dtype", "float32", "--max-tokens", str(SPOKEN), *options) as client:
        call, asked = partial(ask, client, folder.name), chats(http=True, cases=expected)
        with ThreadPoolExecutor(len(asked)) as together:
            runs = {"one by one": [call(m) for m in asked], "all at once": list(together.map(call, asked))}
        for run, answers in runs.items():
            same, off = 0, 0.0
            for (case, want), answer in zip(expected.items(), answers, strict=True):
                tokens = answer["choices"][0]["logprobs"]["content"] if "choices" in answer else []
                texts = [processor.tokenizer.decode([i]) for i in want["ids"]]
                held = answer.get("usage", {}).get("prompt_tokens")
                if ([t["token"] for t in tokens], held) != (texts, len(want["prompt"])):
                    print(case, texts, answer, sep="\n  ")
                    continue
                apart = max(abs(t["logprob"] - s) for t, s in zip(tokens, want["scores"], strict=True))
                off, same = max(off, apart), same + (apart < 1e-3)
            print(f"{folder.name}, weft serve, {run}: {same} of {len(expected)} equal, within {off:.0e}", flush=True)
            wrong += len(expected) - same
        said = [a["choices"][0]["message"]["content"] if "choices" in a else "" for a in runs["one by one"]]
        longest = max(range(len(said)), key=lambda i: len(said[i]))
        wrong += sum(not held for held in promises(call, asked[longest]))
        wrong += sum(not held for held in as_openai(str(client.base_url), folder, asked[longest], said[longest]))
    return wrong


def as_openai(address, folder, messages, said):
    """The same through OpenAI's own client: an answer as a stream; words with their times."""
    client = openai.OpenAI(base_url=address.rstrip("/") + "/v1", api_key="any", max_retries=0)
    asked = {"model": folder.name, "messages": messages, "max_tokens": 32, "temperature": 0}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    held = {"OpenAI's client streams the same answer": text.strip() == said.strip() and chunks[-1].usage is not None}
    if (folder / "words.json").is_file():
        words = [tuple(word) for word in json.loads((folder / "words.json").read_text())]
        options = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
        got = client.audio.transcriptions.create(file=SPEECH, model=folder.name, language="en", **options)
        found = [(w.word, w.start, w.end) for w in got.words]
        held[f"a transcription has the local engine's {len(words)} words and times"] = found == words
    for what, holds in held.items():
        print(f"{what}: {'yes' if holds else 'NO'}", flush=True)
    return held.values()


def plain(folder, *_):
    """vLLM's own server on the folder, whose chat template writes the prompts; asked by OpenAI's client."""
    expected = json.loads((folder / "expected.json").read_text())
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = str(place.getsockname()[1])
    flags = [f"--{o.split('=')[0].replace('_', '-')}" for o in OPTIONS]
    values = [[] if o.endswith("=true") else [o.split("=")[1]] for o in OPTIONS]
    options = [word for flag, value in zip(flags, values, strict=True) for word in (flag, *value)]
    options += [
        "--served-model-name",
        folder.name,
        "--dtype",
        "float32",
        "--limit-mm-per-prompt",
        '{"image": 2, "audio": 2}',
    ]
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", port]
    server = subprocess.Popen([*program, *options], stdout=subprocess.DEVNULL)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", timeout=600)
    same, off = 0, 0.0
    try:
        while server.poll() is None:
            with suppress(openai.APIConnectionError):
                client.models.list()
                break
            time.sleep(1)
        for (case, want), messages in zip(expected.items(), chats(http=True, cases=expected), strict=True):
            fields = {"max_tokens": 32, "temperature": 0, "logprobs": True, "extra_body": {"return_token_ids": True}}
            answer = client.chat.completions.create(model=folder.name, messages=messages, **fields)
            (choice,) = answer.choices
            if (answer.prompt_token_ids, choice.token_ids) != (want["prompt"], want["ids"]):
                print(case, want["prompt"], answer.prompt_token_ids, want["ids"], choice.token_ids, sep="\n  ")
                continue
            scores = [token.logprob for token in choice.logprobs.content]
            apart = max(abs(a - b) for a, b in zip(scores, want["scores"], strict=True))
            off, same = max(off, apart), same + (apart < 1e-3)
    finally:
        server.terminate()
        server.wait(60)
    print(
        f"{folder.name}, vLLM's own server: {same} of {len(expected)} equal, log-probabilities within {off:.0e}",
        flush=True,
    )
    return len(expected) - same


def promises(call, messages):
    """What else of a request the engine keeps."""

    def text(answer, choice=0):
        return answer["choices"][choice]["message"]["content"]

    plain = text(call(messages))
    first = {"temperature": 1.0, "seed": 7}
    drawn, two = call(messages, **first), call(messages, n=2, **first)
    stopped = call(messages, stop=plain[8:11])
    top = call(messages, top_logprobs=5)["choices"][0]["logprobs"]["content"]
    held = {
        "a seed repeats": text(drawn) == text(call(messages, **first)) != plain,
        "the first of several is that of a request for one": text(two) == text(drawn) != text(two, 1),
        "next to no mass is the likeliest": text(call(messages, temperature=1.0, top_p=1e-9)) == plain,
        "a text ends it": stopped["choices"][0]["finish_reason"] == "stop"
        and stopped["choices"][0]["message"]["content"] == plain[: plain.index(plain[8:11])].strip(),
        "five likeliest, the chosen first": all(
            len(t["top_logprobs"]) == 5 and t["top_logprobs"][0]["token"] == t["token"] for t in top
        ),
        "too long is a 400": call([{"role": "user", "content": "word " * 2000}])["status"] == 400,
    }
    for what, holds in held.items():
        print(f"{what}: {'yes' if holds else 'NO'}", flush=True)
    return held.values()


if __name__ == "__main__":
    stage, root, *words = sys.argv[1:]
    names, more = [[w for w in words if ("=" in w) is argument] for argument in (False, True)]
    OPTIONS = (*OPTIONS[:-1], *more) if more else OPTIONS  # several processes want another executor than one
    work = {"make": make, "vllm": serve, "serve": over_http, "plain": plain}[stage]
    sys.exit(sum(work(Path(root, name), *MODELS[name]) or 0 for name in names or MODELS) > 0)
