"""What the demo says about one reading, in words."""

from __future__ import annotations

from html import escape

from signbridge.demo.reading import Reading
from signbridge.probes.dataset.answers import names_class


def said_and_known(reading: Reading, slot: int) -> str:
    """The line of what was said and what a layer knows, as HTML.

    Args:
        reading: of a picture.
        slot: index into its layers.
    """
    probability = reading.probability[slot]
    top = int(probability.argmax())
    name = reading.class_names[top]
    answer = reading.answer or "(nothing)"
    told = "names it too" if names_class(reading.answer, name) else "does not name it"
    known = (
        f"<b>Known:</b> the probe of layer {reading.layers[slot]} reads "
        f"<b>{escape(name)}</b> at {100 * probability[top]:.0f}&nbsp;%; the answer {told}."
    )
    lines = [f"<b>Said:</b> “{escape(answer)}”.", known]
    if reading.forced_choice is not None:
        choice = int(reading.forced_choice.argmax())
        lines.append(
            "<b>Forced to choose</b> among the class names, the model takes "
            f"<b>{escape(reading.class_names[choice])}</b> at "
            f"{100 * reading.forced_choice[choice]:.0f}&nbsp;%."
        )
    return "<br>".join(lines)
