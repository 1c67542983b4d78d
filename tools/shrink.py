"""Reduce the committed figures to 256 colours each: `python -m tools.shrink`.

What is drawn for print has far fewer colours; photographs are dithered. It makes a PNG a third as
large. Figures that are reduced already or would grow, and animations, are left as they are.
"""

import io
import sys

import imagequant
from PIL import Image

from dlapps import runtime
from dlapps.files import atomic_path


def shrink(path):
    """Rewrite a PNG file with a palette of 256 colours; return the bytes saved."""
    before = path.stat().st_size
    with Image.open(path) as image:
        if image.mode == "P":
            return 0
        opaque = image.convert("RGB").convert("RGBA")
    pixels, palette = imagequant.quantize_raw_rgba_bytes(opaque.tobytes(), *opaque.size)
    reduced = Image.frombytes("P", opaque.size, pixels)
    del palette[3::4]  # the opacity
    reduced.putpalette(palette)
    content = io.BytesIO()
    reduced.save(content, "PNG", optimize=True)
    saved = before - content.tell()
    if saved <= 0:
        return 0
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return saved


def main():
    """Reduce figures/full/, say what that saved, and return 0."""
    folder = runtime.project_root() / "figures" / "full"
    saved = sum(shrink(path) for path in sorted(folder.glob("*.png")))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB, {saved / 1e6:.1f} MB saved")
    return 0


if __name__ == "__main__":
    sys.exit(main())
