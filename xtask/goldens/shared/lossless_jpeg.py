"""An encoder of lossless JPEG (ITU-T T.81, process 14 with predictor 1), which no Python package has."""

import struct


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def lossless_jpeg(pixels, bits):
    """Grey pixels of up to 15 bits. All 16 categories of differences have codes of 5 bits, in order."""
    rows, columns = pixels.shape
    code = ""
    for y in range(rows):
        for x in range(columns):
            left = pixels[y, x - 1] if x else pixels[y - 1, 0] if y else 1 << (bits - 1)
            difference = int(pixels[y, x]) - int(left)
            category = abs(difference).bit_length()
            code += f"{category:05b}"
            if category:
                code += f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
    code += "1" * (-len(code) % 8)
    scan = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\x00")
    counts = bytes(16 if length == 5 else 0 for length in range(1, 17))
    return (
        b"\xff\xd8"
        + segment(0xC3, struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0))
        + segment(0xC4, b"\0" + counts + bytes(range(16)))
        + segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
        + scan
        + b"\xff\xd9"
    )
