"""Which place of a source picture a geometry shows where, by hand: what pictures and masks are held against."""


def source_places(geometry, x, y):
    """Source coordinates of output coordinates; pixel centres are whole numbers in both."""
    if geometry.flip:
        x = geometry.crop[2] - 1 - x
    if geometry.angle:
        (a, b, c), (d, e, f) = geometry.turn()
        x, y = a * x + b * y + c, d * x + e * y + f
    else:
        x, y = x + geometry.crop[0], y + geometry.crop[1]
    scale_x, scale_y = (whole / resized for whole, resized in zip(geometry.source, geometry.resized, strict=True))
    return (x + 0.5) * scale_x - 0.5, (y + 0.5) * scale_y - 0.5
