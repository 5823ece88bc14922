"""The pictures of the templates "Start here", as the page's list of templates shows them: small and square.

`python dev.py pictures tests/nodes/take_template_pictures.py`; look at them afterwards, at 250 pixels a side.
"""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from devtools.start_here.captioning import CAPTIONING
from devtools.start_here.models import MODELS
from devtools.start_here.write import FOLDER, names
from harness.help_pictures import outline
from masklora.dataset.sample import Sample
from masklora.loss.masks import reduce_mask
from masklora.viewing.caption_pictures import PARTS, CaptionPictures, draw_caption_picture
from masklora.viewing.views import latent_grid, overlay

SIDE, HEAD, GAP = 600, 96, 8
TILE = (SIDE - 3 * GAP) // 2, (SIDE - HEAD - 2 * GAP) // 2
DARK, LIGHT = (24, 26, 30), (245, 245, 245)
# Rows and columns of the photograph in which its subject lies, in the proportions of a tile.
PART = (slice(0, 264), slice(72, 377))


def font(size):
    return ImageFont.load_default(size)


def tiles():
    """A photograph, its mask over it, and the weights that the loss gives its cells."""
    path, mask = outline("astronaut's head and neck")
    rgb, learned = np.asarray(Image.open(path).convert("RGB")), np.asarray(mask, np.float32) / 255
    cells = reduce_mask(torch.from_numpy(learned)[None, None], grid=(32, 32))[0, 0].numpy()
    shown = [rgb, overlay(rgb, learned), latent_grid(rgb, cells)]
    return [Image.fromarray(one[PART]).resize(TILE, Image.Resampling.LANCZOS) for one in shown]


def labelled(picture, text):
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = draw.textbbox((14, TILE[1] - 50), text, font=font(36))
    draw.rectangle((left - 14, top - 10, right + 12, bottom + 20), fill=DARK)
    draw.text((14, TILE[1] - 50), text, font=font(36), fill=LIGHT)
    return picture


@pytest.mark.parametrize(("name", "model"), list(zip(names(), MODELS, strict=True)), ids=names())
def take_the_picture_of_a_template(name, model):
    sheet = Image.new("RGB", (SIDE, SIDE), DARK)
    draw = ImageDraw.Draw(sheet)
    draw.text((SIDE // 2, HEAD // 2), model.title, font=font(68), fill=LIGHT, anchor="mm")
    places = [(GAP + column * (TILE[0] + GAP), HEAD + row * (TILE[1] + GAP)) for row in (0, 1) for column in (0, 1)]
    for place, picture, text in zip(places, tiles(), ("1 Pictures", "2 Masks", "3 Weights"), strict=False):
        sheet.paste(labelled(picture, text), place)
    x, y = places[-1]
    draw.multiline_text((x + 30, y + 44), "4 Train\n\n5 Compare", font=font(48), fill=LIGHT)
    sheet.save(FOLDER / f"{name}.jpg", quality=88)


def take_the_picture_of_the_template_that_writes_captions():
    path, mask = outline("astronaut's head and neck")
    learned = np.asarray(mask, np.float32) / 255
    sample = Sample(key="a", name="a", size=mask.size, image_path=path, mask=learned)
    sheet = Image.new("RGB", (SIDE, SIDE), DARK)
    draw = ImageDraw.Draw(sheet)
    draw.text((SIDE // 2, HEAD // 2), "Captions", font=font(68), fill=LIGHT, anchor="mm")
    places = [(GAP + column * (TILE[0] + GAP), HEAD + row * (TILE[1] + GAP)) for row in (0, 1) for column in (0, 1)]
    for place, part, text in zip(places, PARTS, ("Whole", "Masked", "Alone"), strict=False):
        seen = Image.fromarray(draw_caption_picture(sample, CaptionPictures(part=part)))
        sheet.paste(labelled(ImageOps.fit(seen, TILE), text), place)
    x, y = places[-1]
    words = "\u201cAn astronaut\nin an orange\nsuit, smiling\u201d\n\nin a.txt"
    draw.multiline_text((x + 18, y + 24), words, font=font(36), fill=LIGHT)
    sheet.save(FOLDER / f"{CAPTIONING}.jpg", quality=88)
