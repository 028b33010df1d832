"""Sheets of small images as PNG inside a page."""

import base64
import struct
import zlib

import numpy as np

LEVELS = 64
"""Steps of a colour map: finer than the eye sees, and few enough for small files."""


def png_uri(pixels: np.ndarray, transparent: int, palette: np.ndarray | None = None) -> str:
    """An image as a data address, the same text for the same pixels.

    Arguments:
        pixels: bytes of shape (h, w) that count colours of the palette, or of shape (h, w, 3) with the colours
            themselves.
        transparent: the colour of the palette, or the grey, that is not painted.
        palette: colours as bytes of shape (colours, 3).

    Source: W3C (2003), *Portable Network Graphics Specification*, sections 5, 9 and 11.
    """
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    height, width = pixels.shape[:2]
    kind = 2 if palette is None else 3
    lines = np.zeros((height, 1 + pixels[0].size), np.uint8)  # every line starts with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    blocks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if palette is None:
        blocks.append((b"tRNS", struct.pack(">HHH", *[transparent] * 3)))
    else:
        opacity = np.where(np.arange(len(palette)) == transparent, 0, 255).astype(np.uint8)
        blocks += [(b"PLTE", np.asarray(palette, np.uint8).tobytes()), (b"tRNS", opacity.tobytes())]
    blocks += [(b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in blocks
    )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
