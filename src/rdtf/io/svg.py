"""SVG pictures to one frame, through resvg."""

from __future__ import annotations

import io
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import resvg_py
from PIL import Image

from rdtf.io.job import STILL_MS, Frames, Job
from rdtf.io.lottie import VECTOR_SIZE
from rdtf.io.pictures import check_data_url
from rdtf.pixels import fit

_DOCTYPE = re.compile(rb"<!DOCTYPE[^\[>]*>", re.IGNORECASE)
_URL = re.compile(r"url\(\s*['\"]?([^'\")]*)", re.IGNORECASE)
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_LINKS = ("href", f"{{{_XLINK}}}href")
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)
_LENGTH = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([a-zA-Z%]*)")
_UNITS = {"": 1.0, "px": 1.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4, "pt": 96 / 72, "pc": 16.0, "em": 16.0}
_MOST_PIXELS = 1e6
_PICTURES = {"image", "feImage"}
_LEFT_OUT = {"text", "foreignObject"}
_PASSED_OVER = {
    "variables of CSS": re.compile(r"\bvar\("),
    "media rules of CSS": re.compile("@media"),
    "transforms of CSS": re.compile(r"[;{\"\s]transform\s*:"),
    "strokes that do not scale": re.compile("non-scaling-stroke"),
}
"""Elements that resvg ignores silently."""
_MOVES = {"animate", "animateMotion", "animateTransform", "set"}


def read_svg(job: Job) -> Frames:
    """Read one frame. Only shapes and embedded pictures are drawn; scripts and links outside of the file are not."""
    root = _check(job)
    width, height = _size(job, root)
    scale = (job.size or VECTOR_SIZE) / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    job.check(1, w, h)
    text = ElementTree.tostring(root, "unicode").replace("rebeccapurple", "#663399")
    try:
        png = resvg_py.svg_to_bytes(svg_string=text, width=w, height=h, dpi=96.0, skip_system_fonts=True)
    except BaseException as error:  # a panic of native code is no Exception
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
        raise job.refuse(f"is no SVG picture that resvg can draw ({error})") from None
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        drawn = np.array(image.convert("RGBA"))[None]
    found = sorted({_name(element) for element in root.iter()} & _LEFT_OUT)
    lost = " and ".join([*found, *(name for name, pattern in _PASSED_OVER.items() if pattern.search(text))])
    if not drawn[..., 3].any():
        raise job.refuse("draws nothing" + (f" ({lost} is not drawn)" if lost else ""))
    if lost:
        job.left_out.append(f"{lost}; convert it to shapes")
    return list(fit(drawn, job.size) if job.size is not None else drawn), np.array([STILL_MS])


def _size(job: Job, root: ElementTree.Element) -> tuple[float, float]:
    """Width and height as in browsers. They are written into the root element, with its view box."""
    numbers = [float(n) for n in re.findall(r"[-+.\deE]+", root.get("viewBox", "")) if _LENGTH.fullmatch(n)]
    box = numbers if len(numbers) == 4 and min(numbers[2:]) > 0 else None
    width, height = (_pixels(root.get(name)) for name in ("width", "height"))
    if box is not None:
        aspect = box[2] / box[3]
        if width is None and height is None:
            width, height = box[2:]
        width = width if width is not None else (height or 0) * aspect
        height = height if height is not None else width / aspect
    width, height = 300.0 if width is None else width, 150.0 if height is None else height
    if not (0 < width < _MOST_PIXELS and 0 < height < _MOST_PIXELS):
        raise job.refuse(f"its size of {width:g} x {height:g} cannot be drawn")
    root.set("width", f"{width:.6f}")
    root.set("height", f"{height:.6f}")
    return width, height


def _pixels(length: str | None) -> float | None:
    """Pixels of a length; None without a length or with a percentage."""
    found = _LENGTH.fullmatch((length or "").strip())
    unit = found and _UNITS.get(found[2].lower())
    return float(found[1]) * unit if found and unit else None


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _check(job: Job) -> ElementTree.Element:
    """Check that an SVG file is safe to draw; returns its root element."""
    limits = job.limits
    if len(job.data) > limits.lottie_bytes:
        raise job.refuse(f"{len(job.data) / 2**20:.0f} MiB is too large for an SVG picture")
    data = _DOCTYPE.sub(b"", job.data, count=1)
    if b"<!doctype" in data.lower() or b"<!entity" in data.lower():
        raise job.refuse("declares entities, which could unfold without end; save it as plain SVG")
    root = _parse(job, data)
    if _name(root) != "svg":
        raise job.refuse(f"is an XML file, but no SVG picture (it begins with <{_name(root)[:40]}>)")
    names = Counter(map(_name, root.iter()))
    if names["script"]:
        raise job.refuse("has a script; save it without")
    if found := sorted(names.keys() & _MOVES):
        raise job.refuse(f"moves by <{found[0]}>, which is not read; convert it to WebP, APNG or GIF")
    for element in root.iter():
        _check_links(job, element)
    _check_uses(job, root)
    return root


def _parse(job: Job, data: bytes) -> ElementTree.Element:
    """The root element. Nesting and the number of elements are limited during parsing."""
    root: ElementTree.Element | None = None
    depth = count = 0
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(data), ("start", "end")):
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            count += event == "start"
            if depth > job.limits.lottie_depth:
                raise job.refuse(f"is nested more than {job.limits.lottie_depth} deep")
            if count > job.limits.lottie_nodes:
                raise job.refuse(f"has more than {job.limits.lottie_nodes} elements")
    except ElementTree.ParseError as error:
        raise job.refuse(f"is no valid XML ({error})") from error
    if root is None:
        raise job.refuse("is an XML file without an element")
    return root


def _check_links(job: Job, element: ElementTree.Element) -> None:
    """Refuse references to anything outside of the file."""
    inside = _name(element) in _PICTURES
    for key, value in element.attrib.items():
        if key in _LINKS and not value.startswith("#"):
            if not (inside and value.startswith("data:image/")):
                raise job.refuse(f"refers to {value[:80]!r}, which lies outside the file; embed it")
            check_data_url(job, value)
        for target in _URL.findall(value):
            if not target.startswith("#"):
                raise job.refuse(f"refers to {target[:80]!r}, which lies outside the file; embed it")
    if _name(element) == "style" and (
        "@import" in (text := element.text or "") or re.search(r"url\(\s*['\"]?[^#'\"]", text)
    ):
        raise job.refuse("has a style that refers to something outside the file; embed it")


def _check_uses(job: Job, root: ElementTree.Element) -> None:
    """Refuse a ``<use>`` that contains itself, and too many elements after following every ``<use>``."""
    sizes: dict[str, int] = {}
    targets: dict[str, list[str]] = {}
    for element in root.iter():
        name = element.get("id") if element is not root else ""
        if name is not None and name not in sizes:
            inner = [*element.iter()]
            sizes[name] = len(inner)
            links = [e.get(link) for e in inner if _name(e) == "use" for link in _LINKS]
            targets[name] = [link[1:] for link in links if link]
    uses = {name: [target for target in links if target in sizes] for name, links in targets.items()}
    job.check_unfolded(sizes, uses, "", "elements")
