"""How the source of an encoder prepares its media, read from its files: exactly, or refused by the setting's name.

What an option of the recipe has said is not read here, and a refusal names the option that would say it. Defaults are
those of the classes of `transformers` that the files name; its own readers are not used: up to 5.16 they need
torchvision, which weft does without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from weft.conversation import WeftError
from weft.models import doors
from weft.named import Named, beside

RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as in preprocessor_config.json
# By a class's name, without what may follow it: what it does where the file is silent.
CLASSES: dict[str, Any] = beside(__file__)
BY_EDGE = CLASSES.pop("by_edge")  # in which a plain number is that of the shorter side
CROPS = Named[Callable[..., Any]]({"middle": "weft.models.crops:middle"})  # of sources that take the middle out
ENDINGS = ("Pil", "Fast", "ImageProcessor", "FeatureExtractor")
# Steps that are read here. A further one that is switched on (padding, tiles, blue first) changes pictures unseen.
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
MORE = ("crop_pct", "rescale_offset", "size_divisor", "max_image_size")
# What weft's log-mel is computed with (`media.mel`).
CLIPS = {"padding_side": "right", "padding_value": 0.0, "dither": 0.0}
MEL = {"sampling_rate": 16000, "hop_length": 160, "n_fft": 400, **CLIPS}
MEL["feature_extractor_type"] = "WhisperFeatureExtractor"


def prepared(source: str, part: str) -> dict[str, Any]:
    """How a source's media are prepared: its own file, or its section of processor_config.json (transformers 5)."""
    own = doors.read_json(source, "preprocessor_config.json", optional=True)
    return own or doors.read_json(source, "processor_config.json", optional=True).get(part) or {}


def pictures(
    raw: Mapping[str, Any], source: str, given: Collection[str] = (), *, cropped: bool = False
) -> dict[str, Any]:
    """The fields of a `VisionSection` that a preprocessor_config.json stands for: size, mean, std, resample.

    Pictures are brought whole to the size that reaches the encoder: where the source crops the middle out (CLIP,
    DINOv2), the crop's size is taken, so that nothing at the sides is lost. With ``cropped`` the section will crop as
    the source does, which weft can where the shorter side fills the crop. ``given``: options that are said already.
    """
    if not raw:
        return {}
    name = str(raw.get("image_processor_type") or raw.get("feature_extractor_type") or "")
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    usual = CLASSES.get(name, {})
    asked = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, **usual, **raw}
    found: dict[str, Any] = {}
    if name == "ConvNext" and not cropped:  # enlarges and crops by its crop_pct, or brings pictures whole to a square
        edge = asked["size"]["shortest_edge"] if isinstance(asked["size"], Mapping) else asked["size"]
        asked |= {"size": [edge, edge], "crop_pct": None}
    if "size" not in given:
        for key, value in asked.items():
            if value and (key in MORE or key.startswith("do_") and key not in STEPS):
                refuse(source, key, value, "vision.options.size")
        if not asked["do_resize"] or asked.get("size") or asked.get("do_center_crop"):
            found["size"] = _size(asked, source, name in BY_EDGE, cropped)
    if asked.get("crop_to_patches"):
        found["tiles"] = asked.get("max_patches", 12)
    if not {"mean", "std"} <= set(given):
        found["mean"], found["std"] = _levels(asked, source)
    if "resample" not in given:
        if asked.get("resample") not in RESAMPLE:
            refuse(source, "resample", asked.get("resample"), "vision.options.resample")
        found["resample"] = RESAMPLE[asked["resample"]]
    return {key: value for key, value in found.items() if key not in given}


def _size(asked: Mapping[str, Any], source: str, by_edge: bool, cropped: bool) -> tuple[int, int]:
    """Height and width of what reaches the encoder."""
    size = asked.get("size")
    if not asked["do_resize"]:
        refuse(source, "do_resize", asked["do_resize"], "vision.options.size")
    edge = size if by_edge and isinstance(size, int) else None
    if isinstance(size, Mapping) and set(_said(size)) == {"shortest_edge"}:
        edge = size["shortest_edge"]
    resized = (edge, edge) if isinstance(edge, int) else sides(size)
    if not asked.get("do_center_crop"):
        if resized is None or edge is not None:  # pictures of many shapes
            refuse(source, "size", size, "vision.options.size")
        return resized
    return CROPS["middle"](asked, source, resized, edge, cropped)  # type: ignore[no-any-return]


def sides(size: Any) -> tuple[int, int] | None:
    """(height, width) of a number, a pair or a mapping of both; None for all that leaves one of them open."""
    if isinstance(size, Mapping):
        said = _said(size)
        size = [said["height"], said["width"]] if set(said) == {"height", "width"} else None
    elif isinstance(size, int):
        size = [size, size]
    if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size):
        return size[0], size[1]
    return None


def _said(size: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in size.items() if value is not None}


def _levels(asked: Mapping[str, Any], source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for pictures in 0 to 1, which is what weft takes them from.

    The source's are of pictures times ``rescale_factor``, or in 0 to 255 where it does not rescale.
    """
    factor = asked["rescale_factor"] if asked["do_rescale"] else 1
    if not isinstance(factor, int | float) or factor <= 0:
        refuse(source, "rescale_factor", factor, "vision.options.mean and std")
    range_ = 1.0 if abs(255 * factor - 1) < 1e-6 else 255 * factor
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    if asked["do_normalize"]:
        mean, std = (_three(asked.get(key), key, source) for key in ("image_mean", "image_std"))
    return tuple(m / range_ for m in mean), tuple(s / range_ for s in std)


def _three(value: Any, key: str, source: str) -> tuple[float, ...]:
    three = [value] * 3 if isinstance(value, int | float) else value
    numbers = isinstance(three, Sequence) and len(three) == 3 and all(isinstance(n, int | float) for n in three)
    if not numbers or key == "image_std" and min(three) <= 0:
        refuse(source, key, value, "vision.options.mean and std")
    return tuple(float(n) for n in three)


def check_sound(raw: Mapping[str, Any], config: Mapping[str, Any], source: str, given: Collection[str] = ()) -> None:
    """Raises `WeftError` where a feature extractor treats a clip as weft does not before the encoder of ``config``.

    A log-mel encoder's is Whisper's, with as many bands as the encoder takes and a window of its positions; one of
    waveforms may normalise each clip and names its rate, which the encoder's kind reads. Attention masks make no
    difference: weft keeps the clips of a batch apart.
    """
    wanted = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, **CLIPS}
    if bands := config.get("num_mel_bins"):
        wanted = {**MEL, "feature_size": bands, "chunk_length": config.get("max_source_positions", 1500) / 50}
    for key, value in wanted.items():
        option = "window_seconds" if key == "chunk_length" else None
        if raw.get(key, value) != value and option not in given:
            refuse(source, key, raw[key], option and f"audio.options.{option}")


def refuse(source: str, setting: str, value: Any, option: str | None = None) -> NoReturn:
    said = "is not given" if value is None else f"is {value!r}"
    instead = f"; say what is meant in {option}" if option else ""
    raise WeftError(f"{source}: {setting} of its preprocessor {said}, which weft cannot follow{instead}")
