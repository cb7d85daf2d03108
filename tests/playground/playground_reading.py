"""Reads what the playground says in English and looks for it in a scene, as a person would: none of its own code."""

import colorsys
import re

PLACES = {
    "on the left": (0, None), "on the right": (2, None), "at the top": (None, 0), "at the bottom": (None, 2),
    "in the middle": (1, 1), "at the top left": (0, 0), "at the top right": (2, 0), "at the bottom left": (0, 2),
    "at the bottom right": (2, 2),
}  # fmt: skip
COLORS = "red|orange|yellow|green|blue|purple|pink|brown|black|white|grey"
SHAPES = "circle|square|triangle|star|heart|ring|cross|arrow|moon|house|tree|fish|cup|key|object"
PHRASE = re.compile(
    rf"^(?:the |an? )?(?:(small|large) )?(?:({COLORS}) )?({SHAPES})(?:es|s)?(?: pointing (up|down|left|right))?"
    rf"(?: ({'|'.join(sorted(PLACES, key=len, reverse=True))}))?(?: (left of|right of|above|below) (.+))?$"
)


def middle(thing, scene):
    left, top, right, bottom = thing.box
    return (left + right) / 2 * scene.width, (top + bottom) / 2 * scene.height


def is_at(thing, scene, words, parts=3):
    """In that third of the picture, or in that half."""
    x, y = middle(thing, scene)
    cells = [min(int(v * parts), parts - 1) for v in (x / scene.width, y / scene.height)]
    wanted = [None if w is None else w * (parts - 1) // 2 for w in PLACES[words]]
    return all(w is None or w == c for w, c in zip(wanted, cells, strict=True))


def is_beside(thing, scene, relation, other):
    (x, y), (ox, oy) = middle(thing, scene), middle(other, scene)
    return {"left of": x < ox, "right of": x > ox, "above": y < oy, "below": y > oy}[relation]


def found(words, scene, parts=3):
    """All things that the words fit, read generously: halves, or thirds, and any that is further left is left of it."""
    match = PHRASE.match(words)
    assert match, f"no phrase: {words!r}"
    size, color, shape, direction, place, relation, landmark = match.groups()
    short = min(scene.width, scene.height)
    things = []
    for thing in scene.things:
        left, top, right, bottom = thing.box
        extent = max((right - left) * scene.width, (bottom - top) * scene.height) / short
        fits = (
            (size is None or (extent < 0.22 if size == "small" else extent > 0.3))
            and color in (None, thing.color)
            and shape in ("object", thing.shape)
            and direction in (None, thing.direction)
            and (place is None or is_at(thing, scene, place, 3 if place == "in the middle" else parts))
        )
        if fits and relation:
            (other,) = found(landmark, scene)
            fits = is_beside(thing, scene, relation, other)
        if fits:
            things.append(thing)
    return things


def color_name(rgb):
    """What a person calls a colour, by hue, saturation and value."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(x / 255 for x in rgb))
    hue *= 360
    if value < 0.2:
        return "black"
    if saturation < 0.12:
        return "white" if value > 0.85 else "grey"
    if hue < 12 or hue > 350:
        return "red"
    if hue < 44:
        return "brown" if value < 0.65 else "orange"
    for end, name in ((75, "yellow"), (170, "green"), (255, "blue"), (310, "purple")):
        if hue < end:
            return name
    return "pink"
