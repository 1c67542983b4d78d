"""Figures as vector graphics: lines and letters as paths, photographs in true colour."""

import base64
import io
import re

from matplotlib.figure import Figure
from PIL import Image

DPI = 130  # of images in a drawing of full width; the report prints them smaller
QUALITY = 85  # of JPEG


def untitled_svg(figure: Figure) -> str:
    """Return a figure as SVG without its title, which it keeps.

    Matplotlib embeds images as PNG. They become JPEG where that is smaller, as of photographs, or
    where they have more than 256 colours.
    """
    title, written = figure._suptitle, io.StringIO()  # `get_suptitle` gives its text alone
    try:
        if title:
            title.set_visible(False)
            title.set_in_layout(False)
        figure.savefig(written, format="svg", dpi=DPI, metadata={"Creator": None, "Date": None})
    finally:
        if title:
            title.set_visible(True)
            title.set_in_layout(True)
    return re.sub(r"data:image/png;base64,([^\"]+)", _lighter, written.getvalue())


def _lighter(found):
    """Return an embedded PNG as the address of a smaller image."""
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as image:
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A") if "A" in image.getbands() else None)
    written = {"jpeg": _saved(opaque, "JPEG", quality=QUALITY)}
    if opaque.getcolors(256):
        exact = opaque.quantize(256, dither=Image.Dither.NONE)
        written["png"] = _saved(exact, "PNG", optimize=True)
    kind = min(written, key=lambda kind: len(written[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(written[kind]).decode()}"


def _saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()
