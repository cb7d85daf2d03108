"""What is said: English sentences from a grammar, numbers in words, and phrases that four languages have in common."""

from __future__ import annotations

import re
import zlib

from weft.playground.chance import Chance
from weft.playground.phrases import LANGUAGES, NOUNS, PLACE_WORDS, Phrase, inflected, say
from weft.playground.scenes import COLORS, HELD_OUT, NEW_PAIR, SHAPES

_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
ONES, TENS = _NUMBERS.split()[:20], _NUMBERS.split()[20:]

_SLOTS = {
    "room": "kitchen bedroom bathroom hallway cellar garage office garden attic living_room dining_room library",
    "device": "lights heating radio television fan oven computer printer dishwasher alarm music vacuum_cleaner",
    "thing": "window door curtain gate drawer cupboard fridge suitcase letter envelope laptop umbrella",
    "food": "apples bananas carrots tomatoes potatoes onions lemons cherries grapes pears eggs mushrooms biscuits "
    "beans noodles olives peaches strawberries sausages pancakes",
    "goods": "bread cheese butter milk rice flour sugar salt honey coffee tea soup chocolate chicken salmon pepper "
    "orange_juice yoghurt jam vinegar",
    "pack": "bag box bottle packet jar tin basket slice bowl bucket",
    "clothes": "jacket shirt scarf coat hat jumper belt skirt dress raincoat sock glove",
    "animal": "dog cat horse rabbit sheep goat duck goose mouse squirrel parrot turtle elephant tiger monkey camel "
    "hedgehog frog spider butterfly",
    "doing": "sleeping running eating waiting hiding jumping swimming dancing singing climbing digging drinking",
    "spot": "under_the_table behind_the_sofa beside_the_lake in_the_forest on_the_roof near_the_bridge "
    "across_the_street in_front_of_the_church along_the_river between_the_houses",
    "person": "Anna Ben Clara David Emma Frank Grace Henry Isabel Jack Kate Liam Maria Nathan Olivia Peter Rachel "
    "Simon Tessa Victor Walter Zoe",
    "relative": "mother father sister brother uncle aunt cousin grandmother grandfather neighbour teacher doctor",
    "city": "London Paris Berlin Madrid Rome Vienna Oslo Dublin Lisbon Prague Boston Chicago Sydney Toronto Tokyo",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "month": "January February March April May June July August September October November December",
    "weather": "sunny cloudy rainy windy foggy stormy snowy cold warm hot dry wet icy humid",
    "when": "today tomorrow tonight this_morning this_afternoon this_evening next_week at_noon later soon",
    "season": "spring summer autumn winter",
    "vehicle": "train bus ferry taxi tram plane bicycle boat lorry motorbike",
    "station": "station airport harbour market museum hospital school bakery theatre stadium castle post_office",
    "quality": "old new heavy beautiful clean dirty modern strange famous little",
    "look": "old new beautiful expensive cheap clean wooden golden silver",
    "state": "broken empty full dirty locked missing",
    "feeling": "happy tired hungry thirsty angry busy ready nervous proud surprised worried bored",
    "sport": "football tennis chess basketball hockey golf volleyball badminton cards",
    "instrument": "piano violin guitar flute trumpet cello harp saxophone",
    "verb": "open close clean paint repair move sell lock measure carry",
    "past": "found lost bought sold broke painted repaired borrowed returned forgot hid washed",
    "often": "always never often sometimes usually rarely",
    "tool": "hammer ladder needle pencil brush rope spade torch knife spoon pillow blanket mirror carpet lamp candle",
    "subject": "history music science geography physics poetry cooking painting grammar dreams volcanoes planets",
    "color": " ".join(COLORS),
}
SLOTS = {slot: [word.replace("_", " ") for word in words.split()] for slot, words in _SLOTS.items()}
TEMPLATES = (
    "Turn {on} the {device} in the {room}.",
    "Please turn {on} the {device} {when}.",
    "Could you {verb} the {thing} in the {room}?",
    "Set a timer for {small} minutes.",
    "Wake me up at {time} on {day}.",
    "Remind me to {verb} the {quality} {thing} {when}.",
    "Will it be {weather} in {city} {when}?",
    "It was {weather} and {weather} in {city} last {season}.",
    "The weather in {month} is {often} {weather} here.",
    "Tomorrow it will be {small} degrees and {weather}.",
    "I need {small} {food} and a {pack} of {goods}.",
    "Add {goods}, {food} and {goods} to my shopping list.",
    "How much does the {color} {clothes} cost?",
    "The {look} {clothes} costs {number} euros.",
    "Do you sell {color} {food} or {look} {tool}s?",
    "The {vehicle} to {city} leaves at {time}.",
    "When does the next {vehicle} to the {station} arrive?",
    "My meeting with {person} begins at {time} on {day}.",
    "It is {time}, and the {station} is still closed.",
    "The number is {number}.",
    "There are {number} people at the {station}.",
    "The {quality} {station} was built {number} years ago.",
    "My code is {digit} {digit} {digit} {digit}.",
    "{person} and {person} went to {city} in {month}.",
    "Call {person} {when}, please.",
    "Send a message to my {relative} in {city}.",
    "{person} {often} plays {sport} with her {relative}.",
    "My {relative} plays the {instrument} every {day}.",
    "A {color} {animal} is {doing} {spot}.",
    "The {animal} and the {animal} are {doing} {spot}.",
    "Why is the {quality} {animal} so {feeling}?",
    "{person} {past} a {color} {tool} {spot}.",
    "Who {past} my {quality} {tool}?",
    "I am {feeling} because the {thing} is {state}.",
    "We learned about {subject} and {subject} at school.",
    "What do you know about {subject}, {person}?",
    "Is the {tool} in the {room} or {spot}?",
    "Where did you put the {color} {tool} and the {thing}?",
    "{person} lives at {number} {color} street in {city}.",
    "Play some {instrument} music {when}.",
)

# What the four languages say alike, in the order of LANGUAGES.
TABLE = tuple(
    tuple(row.split(" | "))
    for row in """Good morning. | Bonjour. | Guten Morgen. | Buenos días.
Good evening. | Bonsoir. | Guten Abend. | Buenas tardes.
Good night. | Bonne nuit. | Gute Nacht. | Buenas noches.
Thank you very much. | Merci beaucoup. | Vielen Dank. | Muchas gracias.
How are you? | Comment allez-vous ? | Wie geht es Ihnen? | ¿Cómo está usted?
What is your name? | Comment vous appelez-vous ? | Wie heißen Sie? | ¿Cómo se llama usted?
Where is the station? | Où est la gare ? | Wo ist der Bahnhof? | ¿Dónde está la estación?
I am hungry. | J'ai faim. | Ich habe Hunger. | Tengo hambre.
I am thirsty. | J'ai soif. | Ich habe Durst. | Tengo sed.
It is raining today. | Il pleut aujourd'hui. | Heute regnet es. | Hoy llueve.
It is snowing today. | Il neige aujourd'hui. | Heute schneit es. | Hoy nieva.
The sun is shining. | Le soleil brille. | Die Sonne scheint. | Brilla el sol.
I would like some water. | Je voudrais de l'eau. | Ich möchte Wasser. | Quisiera agua.
The bill, please. | L'addition, s'il vous plaît. | Die Rechnung, bitte. | La cuenta, por favor.
I do not understand. | Je ne comprends pas. | Ich verstehe nicht. | No entiendo.
Close the door. | Fermez la porte. | Schließen Sie die Tür. | Cierre la puerta.
The train is late. | Le train est en retard. | Der Zug hat Verspätung. | El tren llega tarde.
My brother lives in Paris. | Mon frère habite à Paris. | Mein Bruder wohnt in Paris. | Mi hermano vive en París.
My sister is a doctor. | Ma sœur est médecin. | Meine Schwester ist Ärztin. | Mi hermana es médica.
The dog is sleeping. | Le chien dort. | Der Hund schläft. | El perro duerme.
The cat drinks milk. | Le chat boit du lait. | Die Katze trinkt Milch. | El gato bebe leche.
The children are playing. | Les enfants jouent. | Die Kinder spielen. | Los niños juegan.
We are going to the market. | Nous allons au marché. | Wir gehen auf den Markt. | Vamos al mercado.
I am reading a book. | Je lis un livre. | Ich lese ein Buch. | Leo un libro.
See you tomorrow. | À demain. | Bis morgen. | Hasta mañana.
The coffee is too hot. | Le café est trop chaud. | Der Kaffee ist zu heiß. | El café está demasiado caliente.
How much does it cost? | Combien ça coûte ? | Wie viel kostet das? | ¿Cuánto cuesta?
He works on Monday. | Il travaille lundi. | Er arbeitet am Montag. | Trabaja el lunes.
She speaks four languages. | Elle parle quatre langues. | Sie spricht vier Sprachen. | Ella habla cuatro idiomas.
The window is open. | La fenêtre est ouverte. | Das Fenster ist offen. | La ventana está abierta.""".splitlines()
)
_IS = {"en": "is", "fr": "est", "de": "ist", "es": "está"}
_SHOW = {"en": "I see {}.", "fr": "Je vois {}.", "de": "Ich sehe {}.", "es": "Veo {}."}
_COLOR_IS = {"en": "is", "fr": "est", "de": "ist", "es": "es"}


def in_words(number: int) -> str:
    """0 to 9,999 in English words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    above, below = divmod(number, 1000 if number >= 1000 else 100)
    said = f"{ONES[above]} {'thousand' if number >= 1000 else 'hundred'}"
    return said + ((" " if below >= 100 else " and ") + in_words(below) if below else "")


def sentence(chance: Chance) -> tuple[str, str]:
    """An English sentence of the split, with its numbers in words, and with them in digits."""
    while True:
        filled = written = chance.one(TEMPLATES)
        slots = re.findall(r"{(\w+)}", filled)
        fillings = [_filling(chance, slot) for slot in slots]
        for slot, (words, digits) in zip(slots, fillings, strict=True):
            filled, written = (t.replace(f"{{{slot}}}", w, 1) for t, w in ((filled, words), (written, digits)))
        filled, written = (re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", t) for t in (filled, written))
        if split_of(filled) == chance.split and ("digit" in slots or len(set(fillings)) == len(fillings)):
            return filled[0].upper() + filled[1:], written[0].upper() + written[1:]


def _filling(chance: Chance, slot: str) -> tuple[str, str]:
    if slot == "on":
        word = chance.one(("on", "off"))
    elif slot == "number":
        number = int(10 ** chance.between(1.4, 4)) if chance.yes(0.9) else chance.whole(0, 9999)
        return in_words(number), f"{number:,}" if number > 999 else str(number)
    elif slot in ("small", "digit"):
        number = chance.whole(0, 9) if slot == "digit" else chance.whole(2, 99)
        return in_words(number), str(number)
    elif slot == "time":
        hour = chance.one(ONES[1:13])
        word = chance.one((f"half past {hour}", f"quarter to {hour}", f"quarter past {hour}", f"{hour} o'clock"))
    else:
        word = chance.one(SLOTS[slot])
    return word, word


def split_of(text: str) -> str:
    """Which split a sentence belongs to: one in ten is for tests, one in twenty for development."""
    place = zlib.crc32(text.casefold().encode()) % 20
    return "test" if place < 2 else "dev" if place == 2 else "train"


def alike(chance: Chance) -> tuple[str, ...]:
    """The same in the four languages, of the split: a row of the table, or something about things and colours."""
    while True:
        row = chance.one(TABLE) if chance.yes(0.4) else _about_things(chance)
        if split_of(row[0]) == chance.split:
            if any(f"{color} {shape}" in row[0] for color, shape in HELD_OUT):
                chance.marks.add(NEW_PAIR)
            return row


def _about_things(chance: Chance) -> tuple[str, ...]:
    while True:
        thing = Phrase(chance.one(SHAPES), chance.one(tuple(COLORS)), chance.one((None, None, "small", "large")))
        if chance.split == "test" or (thing.color, thing.shape) not in HELD_OUT:
            break
    kind, place = chance.whole(0, 2), chance.whole(0, 8)
    row = []
    for language in LANGUAGES:
        if kind == 0:
            said = _SHOW[language].format(say(thing, language, "accusative" if language == "de" else "a"))
        elif kind == 1:
            said = f"{say(thing, language)} {_IS[language]} {PLACE_WORDS[language][place]}."
        else:
            bare = Phrase(thing.shape, size=thing.size)
            gender = NOUNS[language][thing.shape or ""][0]
            article = "none" if language == "de" else "the"
            color = inflected(thing.color or "", language, gender, article)
            said = f"{say(bare, language)} {_COLOR_IS[language]} {color}."
        row.append(said[0].upper() + said[1:])
    return tuple(row)
