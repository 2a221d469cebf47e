"""A page with one coloured frame of each shot and its references, for a check before the film is coloured."""

import base64
import html
import io

import torch
from PIL import Image

from pdnla.files import replacing
from pdnla.film.colouring import PreparedFilm, frame_input
from pdnla.film.planning import Film
from pdnla.images import color
from pdnla.images.greys import read_reference
from pdnla.inference.chroma_upscaling import ChromaPlane
from pdnla.inference.colorizer import Colorizer, paint

_STYLE = """
body { font: 15px system-ui, sans-serif; margin: 2em; background: #fff; color: #222 }
section { display: flex; flex-wrap: wrap; gap: 1em; align-items: start; border-top: 1px solid #ccc; padding: 1em 0 }
figure { margin: 0 } img { display: block; max-width: 100% } figcaption { margin-top: .3em }
"""
_REFERENCE = 240  # longest side of a reference, in pixels
_QUALITY = 88


@torch.inference_mode()
def write_review(film: Film, prepared: PreparedFilm, colorizer: Colorizer) -> None:
    """Write the page.

    Args:
        film: the film.
        prepared: its shots and their references.
        colorizer: the colorizer.

    Raises:
        UserError: a reference cannot be read, or the page cannot be written.
    """
    sections = []
    for number, (shot, scores) in enumerate(prepared.choices):
        picture = prepared.middle_frame(number)
        prepared.references.use(shot.references)
        x = frame_input(picture, film.size).to(colorizer.device)
        chroma = colorizer.estimate(x).chroma
        plane = ChromaPlane.fit(color.lightness(x), chroma, picture.size)
        coloured = paint(picture, plane, x.device)
        figures = [_figure(coloured, f"shot {number + 1}: frames {shot.start} to {shot.end - 1}")]
        for path, score in zip(shot.references, scores, strict=True):
            small = read_reference(path).rgb()
            small.thumbnail((_REFERENCE, _REFERENCE))
            figures.append(_figure(small, path.name if score is None else f"{path.name}, score {score:.3f}"))
        sections.append(f"<section>{''.join(figures)}</section>")
    title = html.escape(film.target.name)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{len(prepared.scan.times)} frames in {len(prepared.choices)} shots: the middle"
        " frame of each, with its references. To change them, edit the file of <code>--shots</code> and"
        " colour with it.</p>"
        f"{''.join(sections)}</html>"
    )
    with replacing(film.review) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def _figure(image: Image.Image, caption: str) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    image_tag = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{image_tag}<figcaption>{html.escape(caption)}</figcaption></figure>"
