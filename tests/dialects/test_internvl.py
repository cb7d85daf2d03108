import pytest

from weft.conversation import Box, Conversation, Image, Message, Task, Text
from weft.dialects import get_dialect

ASKED = Conversation((Message("user", (Image("i.png"), Task("refer"), Text("the cup"))),))


@pytest.mark.parametrize(
    "text",
    [
        "<ref>cup</ref><box>[[300, 200, 100, 400]]</box>",
        "<box>[[100, 200, 1300, 400]]</box>",
        "<box>[[100, 200, 300]]</box>",
        "<box>[[100, 200, 300, 400], [500, 600]]</box>",  # what is read of a box is all of it
        "<box>[[100, 200, 300, 400] 500]</box>",
        "<box>[]</box>",
        "<box>[[100, 200, 300, 400]]",
    ],
)
def test_malformed_boxes_stay_text_and_are_named(text):
    dialect = get_dialect("internvl")
    assert dialect.parse(text, ASKED) == [Text(text)]
    assert dialect.malformed(text, ASKED)


def test_boxes_with_and_without_a_name_are_read():
    dialect = get_dialect("internvl")
    both = "A <ref>red cup</ref><box>[[100, 200, 300, 400],[ 0,0,1000,1000 ]]</box> there."
    assert dialect.parse(both, ASKED) == [
        Text("A "), Box(((0.1, 0.2, 0.3, 0.4), (0.0, 0.0, 1.0, 1.0)), "red cup", 0), Text(" there.")
    ]  # fmt: skip
    assert dialect.parse("<box>[[500, 200, 500, 400]]</box>", ASKED) == [Box(((0.5, 0.2, 0.5, 0.4),), "the cup", 0)]
    assert dialect.malformed(both, ASKED) == []
