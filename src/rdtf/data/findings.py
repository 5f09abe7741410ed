"""What can be found about a sticker, in words for people: what it is, why it matters, what treats it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A kind of finding.

    Attributes:
        title: a few words.
        meaning: what was seen, and why it matters, a sentence or two.
        advice: what to do about it, with the option that treats it if there is one.
    """

    title: str
    meaning: str
    advice: str


FRAME_FINDINGS = {
    "still_animation": Finding(
        "A still that poses as an animation",
        "All its frames are alike. Training would draw clips of it that teach not to move.",
        "Save it as a still picture, or take it out.",
    ),
    "empty_frames": Finding(
        "Empty frames",
        "Some of its frames are completely transparent: it blinks, or its export is broken.",
        "Look at the examples. A blink may stay; a broken export is best made anew.",
    ),
    "jump": Finding(
        "It jumps when it starts again",
        "From the last frame to the first is more than three usual steps. People see a jerk when it repeats.",
        "Nothing has to be done: training does not take it for a loop.",
    ),
    "margins": Finding(
        "Large margins",
        "What is drawn takes less than half of the canvas, each way, so that most pixels teach nothing.",
        "rdtf prepare --crop content",
    ),
    "letterbox": Finding(
        "Letterbox",
        "It has bars of one colour at two sides that face each other, as a film on another screen.",
        "rdtf prepare --crop content",
    ),
    "flat_background": Finding(
        "A flat background",
        "It stands on an opaque background of one colour, so that what is drawn has no outline of its own.",
        "rdtf prepare --background transparent",
    ),
    "opaque": Finding(
        "No transparency",
        "It is a picture from side to side, such as a photograph or a piece of a film.",
        "Nothing here can cut it out. Take it out if you want stickers with outlines.",
    ),
    "text_only": Finding(
        "Lettering only",
        "Nothing but writing seems to be drawn. Small models learn letters as shapes that cannot be read.",
        "Take it out, unless lettering is what you want; the caption should then say what is written.",
    ),
    "background_cleared": Finding(
        "Background made transparent",
        "Its flat background was cleared, as --background transparent asked for.",
        "Look at the edges in the examples.",
    ),
    "cropped": Finding(
        "Cropped",
        "It was cropped to what is drawn, as --crop content asked for.",
        "Nothing has to be done.",
    ),
}
"""What can be found in frames, by the codes that a dataset holds."""

CAPTION_FINDINGS = {
    "no_caption": Finding(
        "No caption",
        "Nothing says what it shows. It teaches motion and looks, but no words.",
        "rdtf caption FOLDER --model MODEL, or a line in metadata.jsonl; then prepare again.",
    ),
    "file_name": Finding(
        "A caption like a file name",
        "A caption looks like a file name that says nothing.",
        "rdtf caption FOLDER --model MODEL, or a line in metadata.jsonl; then prepare again.",
    ),
    "markup": Finding(
        "Markup in a caption",
        "Markup was taken out of a caption.",
        "Nothing has to be done.",
    ),
    "link": Finding(
        "A link in a caption",
        "A link or an address was taken out of a caption.",
        "Nothing has to be done, unless the rest says nothing.",
    ),
    "mention": Finding(
        "An account in a caption",
        "A mention of an account was taken out of a caption.",
        "Nothing has to be done, unless the rest says nothing.",
    ),
    "hashtag": Finding(
        "Hashtags in a caption",
        "Hashtags of a caption were turned into words.",
        "Nothing has to be done.",
    ),
    "long_caption": Finding(
        "A very long caption",
        "A caption has more than 60 words, of which text encoders see the first ones only.",
        "Shorten it, or give a short one first.",
    ),
}
"""What can be found in captions, by the codes that a dataset holds."""
