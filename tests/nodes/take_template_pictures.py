"""The pictures of the templates "Start here", as the page's list of templates shows them: small and square.

`python dev.py pictures tests/nodes/take_template_pictures.py`; look at them afterwards, at 250 pixels a side.
"""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from devtools.start_here.captioning import CAPTIONING
from devtools.start_here.following import FOLLOWING
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


def fitting(draw, title):
    """The font of a title, smaller where it is long."""
    return next(font(size) for size in range(68, 20, -2) if draw.textlength(title, font=font(size)) <= SIDE - 4 * GAP)


def tiles(clip):
    """A photograph, its mask over it, and the weights that the loss gives its cells; of a clip of it three frames."""
    path, mask = outline("astronaut's head and neck")
    rgb, learned = np.asarray(Image.open(path).convert("RGB")), np.asarray(mask, np.float32) / 255
    cells = reduce_mask(torch.from_numpy(learned)[None, None], grid=(32, 32))[0, 0].numpy()
    shown = [rgb, overlay(rgb, learned), latent_grid(rgb, cells)]
    return [film(one) if clip else Image.fromarray(one[PART]).resize(TILE, Image.Resampling.LANCZOS) for one in shown]


def pair(picture):
    """What a model is given beside what it shall make of it: the left half is without colour where the mask is."""
    path, mask = outline("astronaut's head and neck")
    grey = Image.composite(Image.open(path).convert("L").convert("RGB"), Image.open(path).convert("RGB"), mask)
    wide = (TILE[0] - GAP) // 2
    strip = Image.new("RGB", TILE, DARK)
    for number, shown in enumerate((grey, picture)):
        rows, columns = PART
        part = Image.fromarray(np.asarray(shown)[rows, columns]) if shown is grey else shown
        whole = part.resize(TILE, Image.Resampling.LANCZOS)
        left = (TILE[0] - wide) // 2
        strip.paste(whole.crop((left, 0, left + wide, TILE[1])), (number * (wide + GAP), 0))
    return strip


def film(pixels):
    """Three frames beside each other of somebody who walks past, as a camera sees it that stands still."""
    wide = (TILE[0] - 2 * GAP) // 3
    strip = Image.new("RGB", TILE, DARK)
    rows = PART[0]
    across = (rows.stop - rows.start) * wide // TILE[1]
    for number, left in enumerate((230, 160, 90)):
        frame = Image.fromarray(pixels[rows, left : left + across]).resize((wide, TILE[1]), Image.Resampling.LANCZOS)
        strip.paste(frame, (number * (wide + GAP), 0))
    return strip


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
    draw.text((SIDE // 2, HEAD // 2), model.title, font=fitting(draw, model.title), fill=LIGHT, anchor="mm")
    places = [(GAP + column * (TILE[0] + GAP), HEAD + row * (TILE[1] + GAP)) for row in (0, 1) for column in (0, 1)]
    first = "1 Clips" if model.clip else "1 Pairs" if model.pair else "1 Pictures"
    shown = tiles(model.clip)
    if model.pair:
        shown[0] = pair(shown[0])
    for place, picture, text in zip(places, shown, (first, "2 Masks", "3 Weights"), strict=False):
        sheet.paste(labelled(picture, text), place)
    x, y = places[-1]
    words = "5 Train\n\n6 Compare" if model.pair else "4 Train\n\n5 Compare"
    draw.multiline_text((x + 30, y + 44), words, font=font(48), fill=LIGHT)
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


def take_the_picture_of_the_template_with_masks_that_follow():
    sheet = Image.new("RGB", (SIDE, SIDE), DARK)
    draw = ImageDraw.Draw(sheet)
    draw.text((SIDE // 2, HEAD // 2), "Masks follow", font=font(68), fill=LIGHT, anchor="mm")
    places = [(GAP + column * (TILE[0] + GAP), HEAD + row * (TILE[1] + GAP)) for row in (0, 1) for column in (0, 1)]
    for place, picture, text in zip(places, tiles(clip=True), ("1 Clips", "2 Follow", "3 Check"), strict=False):
        sheet.paste(labelled(picture, text), place)
    x, y = places[-1]
    draw.multiline_text((x + 30, y + 44), "4 Cache\n\n5 Train", font=font(48), fill=LIGHT)
    sheet.save(FOLDER / f"{FOLLOWING}.jpg", quality=88)
