"""What is asked about a hand, and the answers for each sign.

An answer is always one word about the shape of the hand, never the name of a letter. Together the
answers tell the 24 letters apart, so that a model which has learned all of them holds more about
the image than any one of its answers says.

The shapes are those of the pictures of Sign Language MNIST: its T is a hand with the thumb up and
the index finger pointing sideways.
"""

from __future__ import annotations

from dataclasses import dataclass

from signbridge.model.prompts import DEFAULT_PROMPT

OPEN, CLOSE = "USER: <image>\n", "\nASSISTANT:"


@dataclass(frozen=True)
class Question:
    """One question about an image.

    Attributes:
        name: the short name used in tables.
        text: the question in full, as a user would ask it about an image.
        follow_up: the same question as the next turn of a conversation, in one or two words.
        answers: the words that may be its answer.
    """

    name: str
    text: str
    follow_up: str
    answers: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The question as a prompt in the turn format of LLaVA-1.5."""
        return f"{OPEN}{self.text}{CLOSE}"


GESTURE = Question(
    "gesture",
    DEFAULT_PROMPT.removeprefix(OPEN).removesuffix(CLOSE),
    "sign?",
    ("fist", "point", "peace", "hand", "call"),
)
_FINGER = ("straight", "bent", "folded", "touching")
QUESTIONS = (
    GESTURE,
    Question(
        "count",
        "How many fingers are straight?",
        "how many?",
        ("zero", "one", "two", "three", "four"),
    ),
    Question(
        "thumb",
        "Where is the thumb?",
        "thumb?",
        ("out", "up", "beside", "across", "below", "under", "between", "touching"),
    ),
    Question("direction", "Which way does the hand point?", "direction?", ("up", "side", "down")),
    Question(
        "spread",
        "Are the fingers spread?",
        "spread?",
        ("spread", "together", "crossed", "none"),
    ),
    Question("index", "What does the index finger do?", "index?", _FINGER),
    Question("middle", "What does the middle finger do?", "middle?", _FINGER),
    Question("ring", "What does the ring finger do?", "ring?", _FINGER),
    Question("little", "What does the little finger do?", "little?", _FINGER),
    Question(
        "over", "How many fingers lie over the thumb?", "over?", ("zero", "two", "three", "four")
    ),
)
NAMES = tuple(question.name for question in QUESTIONS)

# In the order of QUESTIONS; a dash where a picture does not tell.
_LETTERS = """
A fist  zero  beside   up   none     folded   folded   folded   folded   zero
B hand  four  across   up   together straight straight straight straight zero
C hand  zero  out      side together bent     bent     bent     bent     zero
D point one   touching up   none     straight touching touching folded   zero
E fist  zero  below    up   together bent     bent     bent     bent     zero
F hand  three touching up   spread   touching straight straight straight zero
G point one   beside   side none     straight folded   folded   folded   zero
H peace two   across   side together straight straight folded   folded   zero
I call  one   across   up   none     folded   folded   folded   straight zero
K peace two   between  up   spread   straight straight folded   folded   zero
L point one   out      up   none     straight folded   folded   folded   zero
M fist  zero  under    up   none     folded   folded   folded   folded   three
N fist  zero  under    up   none     folded   folded   folded   folded   two
O hand  zero  touching up   together touching touching touching touching zero
P peace two   between  down spread   straight straight folded   folded   zero
Q point one   beside   down none     straight folded   folded   folded   zero
R peace two   across   up   crossed  straight straight folded   folded   zero
S fist  zero  across   up   none     folded   folded   folded   folded   zero
T point one   up       side none     straight folded   folded   folded   zero
U peace two   across   up   together straight straight folded   folded   zero
V peace two   across   up   spread   straight straight folded   folded   zero
W hand  three across   up   spread   straight straight straight folded   zero
X point zero  across   up   none     bent     folded   folded   folded   zero
Y call  one   out      up   none     folded   folded   folded   straight zero
"""
# ASL digits, by 218 people: some lay the thumb across, some hold it at the fingertips.
_DIGITS = """
0 hand  zero  touching up   together touching touching touching touching zero
1 point one   -        up   none     straight folded   folded   folded   zero
2 peace two   across   up   spread   straight straight folded   folded   zero
3 peace two   out      up   spread   straight straight folded   folded   zero
4 hand  four  across   up   -        straight straight straight straight zero
5 hand  four  out      up   spread   straight straight straight straight zero
6 hand  three touching up   spread   straight straight straight touching zero
7 hand  three touching up   spread   straight straight touching straight zero
8 hand  three touching up   spread   straight touching straight straight zero
9 hand  three touching up   spread   touching straight straight straight zero
"""
UNKNOWN = -1


def _table(text: str) -> dict[str, tuple[int, ...]]:
    table = {}
    for line in text.strip().splitlines():
        sign, *words = line.split()
        table[sign] = tuple(
            UNKNOWN if word == "-" else question.answers.index(word)
            for question, word in zip(QUESTIONS, words, strict=True)
        )
    return table


ANSWERS: dict[str, tuple[int, ...]] = {**_table(_LETTERS), **_table(_DIGITS)}
"""Of each letter and digit, the index of every question's answer, ``UNKNOWN`` where none is."""


def vocabulary() -> list[str]:
    """Return every word of the questions and answers, in a fixed order."""
    import re

    texts = [DEFAULT_PROMPT.replace("<image>", " ")]
    texts += [f"{question.prompt.replace('<image>', ' ')}" for question in QUESTIONS]
    texts += [question.follow_up for question in QUESTIONS]
    texts += [" ".join(question.answers) for question in QUESTIONS]
    return list(dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)))
