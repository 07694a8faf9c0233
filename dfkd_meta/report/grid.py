"""A grid of images as one PNG file, with the standard library alone.

Pillow is an extra, and a distillation must not need one to show what it made.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from torch import Tensor

from dfkd_meta.sidecar import InputSpec
from dfkd_meta.teachers import denormalize


def grid_png(
    images: Tensor, inputs: InputSpec, *, columns: int = 10, scale: int = 2
) -> bytes | None:
    """PNG bytes of the images in rows of ``columns``, each pixel drawn ``scale`` times as large.

    images: float32 `n c h w`, model-normalized. Returns None for inputs that are not images of one
    or three channels.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        return None
    low, high = inputs.value_range
    unit = (denormalize(images, inputs) - low) / (high - low)
    pixels = (unit * 255).round().byte().cpu().numpy()
    return encode_png(_tile(pixels, columns).repeat(scale, axis=0).repeat(scale, axis=1))


def _tile(pixels: np.ndarray, columns: int) -> np.ndarray:
    """uint8 `n c h w` to a picture `(rows h+1) (columns w+1) c`, one gray pixel between images."""
    count, channels, height, width = pixels.shape
    rows = -(-count // columns)
    canvas = np.full((rows, columns, height + 1, width + 1, channels), 128, np.uint8)
    for index, image in enumerate(pixels):
        canvas[index // columns, index % columns, :height, :width] = image.transpose(1, 2, 0)
    return canvas.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 1), columns * (width + 1), -1)


def encode_png(picture: np.ndarray) -> bytes:
    """uint8 `h w c` (c = 1 gray or 3 RGB) as PNG (RFC 2083, 8 bit, no interlace, filter 0)."""
    height, width, channels = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in picture)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
