"""`weft import`: published checkpoints to weft folders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from weft.formats.folder import Imported

app = typer.Typer(no_args_is_help=True, help="Turn a published checkpoint into a weft folder.")


Checkpoint = Annotated[Path, typer.Option(help="The published folder.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]
Kind = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Type of the written weights; auto: that of the language model's file."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the model folder that is there.")]


@app.command("minigpt-v2")
def minigpt_v2(
    vision: Annotated[Path, typer.Option(help="eva_vit_g.pth")],
    llm: Annotated[Path, typer.Option(help="The Llama-2-7b-chat folder (Hugging Face layout).")],
    checkpoint: Annotated[Path, typer.Option(help="minigptv2_checkpoint.pth")],
    out: Out,
    dtype: Kind = "auto",
    force: Force = False,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the image in pixels; default: twice that of the vision file (448).")
    ] = None,
    vision_heads: Annotated[
        int | None, typer.Option(help="Attention heads of the vision tower, which its file does not say (16).")
    ] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="LoRA scale times its rank; default: 16.")] = None,
    keep_adapter: Annotated[
        bool, typer.Option("--keep-adapter", help="Keep the LoRA apart: an adapter with its base inside.")
    ] = False,
) -> None:
    """MiniGPT-v2: vision tower, Llama-2 and the trained checkpoint as one folder, its LoRA folded in."""
    from weft.formats.minigpt_v2 import import_minigpt_v2

    own = {"image_size": image_size, "heads": vision_heads, "lora_alpha": lora_alpha, "keep_adapter": keep_adapter}
    _read(import_minigpt_v2, vision, llm, checkpoint, out, dtype, force=force, **own)


@app.command("qwen-audio")
def qwen_audio(
    checkpoint: Annotated[Path, typer.Option(help="The Qwen-Audio or Qwen-Audio-Chat folder.")],
    out: Out,
    dtype: Kind = "auto",
    force: Force = False,
    pad_id: Annotated[
        int | None, typer.Option(help="Id repeated over a clip, for a folder without qwen.tiktoken.")
    ] = None,
) -> None:
    """Qwen-Audio and Qwen-Audio-Chat."""
    from weft.formats.qwen_audio import import_qwen_audio

    _read(import_qwen_audio, checkpoint, out, dtype, force=force, pad_id=pad_id)


@app.command("llasm")
def llasm(
    checkpoint: Annotated[Path, typer.Option(help="The LLaSM folder (Chinese-Llama-2 or Baichuan).")],
    whisper: Annotated[Path, typer.Option(help="The Whisper folder it was trained with (openai/whisper-large-v2).")],
    out: Out,
    dtype: Kind = "auto",
    force: Force = False,
    family: Annotated[
        Literal["chinese_llama2", "baichuan"] | None,
        typer.Option(help="Which prompt it was trained with; default: told by the vocabulary."),
    ] = None,
) -> None:
    """LLaSM, and the Whisper that its folder does not hold."""
    from weft.formats.llasm import import_llasm

    _read(import_llasm, checkpoint, whisper, out, dtype, force=force, family=family)


@app.command("llava")
def llava(
    checkpoint: Annotated[Path, typer.Option(help="The LLaVA-1.5 folder, as released or converted (llava-hf).")],
    out: Out,
    dtype: Kind = "auto",
    force: Force = False,
    vision: Annotated[
        Path | None,
        typer.Option(help="The CLIP folder of a released checkpoint (openai/clip-vit-large-patch14-336)."),
    ] = None,
    template: Annotated[
        Literal["vicuna_v1", "hf"] | None,
        typer.Option(help="Which prompt: the released code's or llava-hf's; default: told by the folder's layout."),
    ] = None,
) -> None:
    """LLaVA-1.5, in the released layout or that of transformers."""
    from weft.formats.llava import import_llava

    _read(import_llava, checkpoint, out, dtype, force=force, vision=vision, template=template)


# Systems of which a folder is all there is to say: their modules in `formats`.
PLAIN = {
    "qwen": "Qwen-7B alone, with Qwen-Audio's tokens: the language model that the recipe qwen_audio starts from.",
    "internvl": "InternVL 2.5 and 3, as converted for transformers (InternVL3-1B-hf); pictures are cut into tiles.",
    "qwen2-audio": "Qwen2-Audio and Qwen2-Audio-Instruct, as published for transformers.",
}


def _plain(name: str) -> Callable[..., None]:
    def command(checkpoint: Checkpoint, out: Out, dtype: Kind = "auto", force: Force = False) -> None:
        system = name.replace("-", "_")
        read = getattr(import_module(f"weft.formats.{system}"), f"import_{system}")
        _read(read, checkpoint, out, dtype, force=force)

    return command


for _name, _what in PLAIN.items():
    app.command(_name, help=_what)(_plain(_name))


def _read(read: Callable[..., Imported], *given: Any, **asked: Any) -> None:
    """Imports, with a line that counts what is written, and says what became of it."""
    report(read(*given, **asked, progress=progress_line()))


def progress_line() -> Callable[[int, int], None] | None:
    """A line on stderr that counts written gigabytes, on a terminal; nothing in a log file."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        end = "\n" if done >= total else ""
        print(f"\rwriting {done / 1e9:.2f} of {total / 1e9:.2f} GB", end=end, file=sys.stderr, flush=True)

    return show


def report(done: Imported) -> None:
    for source in done.sources:
        print(f"{source.label}: {source.used} tensors used{_surplus(source.surplus)}")
    for note in done.notes:
        print(f"warning: {note}", file=sys.stderr)
    kind = str(done.dtype).removeprefix("torch.")
    size = f"{done.bytes / 1e9:.2f} GB" if done.bytes >= 1e8 else f"{done.bytes / 1e6:.2f} MB"
    print(f"{done.out}: {len(done.outputs)} tensors, {done.parameters:,} parameters, {kind}, {size}")
    if kind == "float16":
        print("float16 is very slow on a CPU; import with --dtype bfloat16 or float32 to run it there")


def _surplus(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f", {len(names)} known to be surplus ({shown})"
