"""Goldens of the DICOM decoder: small files in every supported encoding, and pydicom's pixels of them.

    python xtask/goldens/dicom.py data/goldens/dicom

The pixels are a pattern without randomness, so that a second run writes the same bytes. `cases.json` lists
the frames and windows with their images, and the files that must be refused with a part of the message.
"""

import io
import json

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from shared.dicom import write_case
from shared.lossless_jpeg import lossless_jpeg
from shared.script import begin

PINNED = {"pydicom": "3.0.2", "pillow": "13.0.0", "numpy": "2.4.6", "pylibjpeg-openjpeg": "2.6.0",
          "pylibjpeg-libjpeg": "2.5.0"}
ROWS, COLUMNS = 12, 18
Y, X = np.mgrid[0:ROWS, 0:COLUMNS]

GREY8 = (X * 13 + Y * 7).astype(np.uint8)
GREY12 = ((X * 241 + Y * 97) % 4096).astype(np.uint16)
CT = (X * 150 + Y * 31 - 1100).astype(np.int16)
RGB = np.stack([X * 14, Y * 21, 255 - X * 7 - Y * 10], -1).astype(np.uint8)
CT_WINDOWS = {"RescaleSlope": "1.5", "RescaleIntercept": "-200", "WindowCenter": ["40", "-600"],
              "WindowWidth": ["400", "1500"]}


def data_set(pixels, syntax=ExplicitVRLittleEndian, photometric="MONOCHROME2", samples=1, bits=None, frames=1,
             rows=ROWS, columns=COLUMNS, **attributes):
    """A data set of uncompressed pixels, [frames, rows, columns, samples] in any layout."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID("1.2.3.4")
    ds.file_meta.ImplementationClassUID = UID("1.2.3")
    ds.Modality, ds.PatientID, ds.BodyPartExamined = "CT", "P-7", "CHEST"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID("1.2.3.5"), UID("1.2.3.6")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, photometric
    ds.Rows, ds.Columns = rows, columns
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if samples > 1:
        ds.PlanarConfiguration = 0
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    ds.PixelData += b"\0" * (len(ds.PixelData) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def encapsulated(ds, syntax, frames, fragments=1, has_bot=True):
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_bot)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds


def compressed(ds, syntax, **options):
    ds.compress(syntax, generate_instance_uid=False, **options)
    return ds


def table(first, entries, bits, vr="US"):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = list(entries)
    item["LUTDescriptor"].VR, item["LUTData"].VR = vr, "US"
    return item


def jpeg(pixels, mode, **options):
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def palette(ds, entries, bits, first=0):
    data = {"Red": entries, "Green": entries[::-1], "Blue": np.roll(entries, 7)}
    for name, values in data.items():
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(entries), first, bits])
        ds[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        values = values.astype("<u2" if bits == 16 else "u1")
        setattr(ds, f"{name}PaletteColorLookupTableData", values.tobytes())
    return ds


def segmented(ds):
    """48 values, a ramp of 150, the first segment again, another ramp."""
    words = [0, 48, *range(0, 48 * 900, 900), 1, 150, 65000, 2, 1, 0, 0, 1, 10, 100]
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        ds[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        data = np.array(words, "<u2").tobytes()
        setattr(ds, f"Segmented{name}PaletteColorLookupTableData", data)
    return ds


def enhanced():
    """Two frames with a rescale of their own, and a window for all."""
    ds = data_set(np.stack([GREY12, GREY12[::-1]]), frames=2, bits=12)
    shared, window = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = "1000", "3000"
    shared.FrameVOILUTSequence = [window]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for slope in ("1", "0.5"):
        groups, rescale = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, "-100"
        groups.PixelValueTransformationSequence = [rescale]
        ds.PerFrameFunctionalGroupsSequence.append(groups)
    return ds


def ybr(pixels):
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"))


def grey_files():
    ct = dict(pixels=CT, **CT_WINDOWS)
    yield "ct", data_set(**ct), [0, 1]
    yield "ct-implicit", data_set(syntax=ImplicitVRLittleEndian, **ct), [0]
    yield "ct-big-endian", data_set(syntax=ExplicitVRBigEndian, **ct), [0]
    yield "ct-deflated", data_set(syntax=DeflatedExplicitVRLittleEndian, **ct), [0]
    yield "grey", data_set(GREY8), [0]
    window = {"WindowCenter": "1800", "WindowWidth": "2500"}
    # The four high bits are not part of the values.
    yield "monochrome1", data_set(GREY12 | 0xa000, photometric="MONOCHROME1", bits=12, **window), [0]
    yield "signed-12", data_set(GREY12.view(np.int16), bits=12, WindowCenter="0", WindowWidth="3000"), [0]
    for function in ("LINEAR_EXACT", "SIGMOID"):
        yield function.lower(), data_set(GREY12, bits=12, VOILUTFunction=function, **window), [0]
    modality = [table(100, (np.arange(3000) ** 2 % 40009).tolist(), 16)]
    yield "modality-table", data_set(GREY12, bits=12, ModalityLUTSequence=modality), [0]
    tables = [table(0, range(255, -1, -1), 8), table(40, range(0, 4096, 32), 12)]
    yield "voi-tables", data_set(GREY8, VOILUTSequence=tables, WindowCenter="90", WindowWidth="60"), [0, 1, 2]
    yield "grey-32", data_set(GREY12.astype(np.uint32) * 70001), [0]
    yield "enhanced", enhanced(), [0]
    ds = data_set(GREY8, bits=1, frames=3)
    bits = np.packbits(np.arange(3 * ROWS * COLUMNS) % 7 < 3, bitorder="little").tobytes()
    ds.BitsAllocated, ds.PixelData = 1, bits + b"\0" * (len(bits) % 2)
    yield "bits", ds, [0]
    ds = data_set(GREY12.astype(np.float32) / 7)
    ds.FloatPixelData = ds.PixelData
    del ds.PixelData
    yield "float", ds, [0]


def colour_files():
    rgb = dict(photometric="RGB", samples=3)
    yield "rgb", data_set(RGB, **rgb), [0]
    yield "rgb-planar", data_set(np.moveaxis(RGB, -1, 0).copy(), **rgb, PlanarConfiguration=1), [0]
    yield "rgb-16", data_set(RGB.astype(np.uint16) * 250, **rgb), [0]
    yield "rgb-big-endian", data_set(RGB.astype(np.uint16) * 250, ExplicitVRBigEndian, **rgb), [0]
    full = ybr(RGB)
    yield "ybr", data_set(full, photometric="YBR_FULL", samples=3), [0]
    halved = np.concatenate([full[:, 0::2, :1], full[:, 1::2, :1], full[:, 0::2, 1:]], -1)
    yield "ybr-422", data_set(halved, photometric="YBR_FULL_422", samples=3), [0]
    indices = dict(pixels=GREY8, photometric="PALETTE COLOR")
    yield "palette-16", palette(data_set(**indices), np.arange(256) * 257, 16), [0]
    yield "palette-8", palette(data_set(**indices), np.arange(200), 8, first=20), [0]
    yield "palette-segmented", segmented(data_set(**indices)), [0]


def compressed_files():
    ct = dict(pixels=CT, **CT_WINDOWS)
    rgb = dict(pixels=RGB, photometric="RGB", samples=3)
    frames = np.stack([GREY8, GREY8[::-1], GREY8[:, ::-1]])
    yield "rle", compressed(data_set(**ct), RLELossless), [0]
    yield "rle-rgb", compressed(data_set(**rgb), RLELossless), [0]
    yield "rle-frames", compressed(data_set(frames, frames=3), RLELossless), [0]
    # The encoder needs 32 pixels a side.
    large = dict(rows=3 * ROWS, columns=3 * COLUMNS)
    ct = dict(ct, pixels=CT.repeat(3, 0).repeat(3, 1), **large)
    yield "jpeg-2000", compressed(data_set(**ct), JPEG2000Lossless), [0]
    rgb = dict(rgb, pixels=RGB.repeat(3, 0).repeat(3, 1), photometric="YBR_ICT", **large)
    yield "jpeg-2000-lossy", compressed(data_set(**rgb), JPEG2000, j2k_psnr=[45]), [0]
    colour = data_set(RGB, photometric="YBR_FULL_422", samples=3)
    yield "jpeg", encapsulated(colour, JPEGBaseline8Bit, [jpeg(RGB, "RGB")]), [0]
    encoded = [jpeg(frame, "L") for frame in frames]
    grey = lambda: data_set(frames, frames=3)
    yield "jpeg-extended", encapsulated(grey(), JPEGExtended12Bit, encoded), [0]
    yield "jpeg-fragments", encapsulated(grey(), JPEGBaseline8Bit, encoded, fragments=2), [0]
    yield "jpeg-no-offsets", encapsulated(grey(), JPEGBaseline8Bit, encoded, fragments=2, has_bot=False), [0]
    window = {"WindowCenter": "1800", "WindowWidth": "2500"}
    lossless = data_set(GREY12, bits=12, photometric="MONOCHROME1", **window)
    yield "jpeg-lossless", encapsulated(lossless, JPEGLosslessSV1, [lossless_jpeg(GREY12, 12)]), [0]


def refused_files():
    report = data_set(GREY8)
    del report.PixelData
    yield "report", report, "the file has no pixel data"
    yield "frames-that-lie", data_set(GREY8, frames=65536), "65536 x 12 x 18 x 1 of 8 bits, are 14155776"
    yield "rows-that-lie", data_set(GREY8, rows=65535, columns=65535), "65535 x 65535 x 1, are more than"
    yield "no-width", data_set(GREY8, WindowCenter="40", WindowWidth="0"), "center 40 and width 0"
    ls = encapsulated(data_set(GREY8), JPEGLSLossless, [b"\xff\xd8\xff\xf7"])
    yield "jpeg-ls", ls, "1.2.840.10008.1.2.4.80 (JPEG-LS Lossless) is not supported"
    other = encapsulated(data_set(GREY8, rows=24), JPEGBaseline8Bit, [jpeg(GREY8, "L")])
    yield "jpeg-of-another-size", other, "the compressed frame is 12 x 18 x 1"
    yield "cmyk", data_set(RGB, photometric="CMYK", samples=3), "`CMYK` is not supported"


def main():
    out = begin(PINNED)
    cases = []
    for files in (grey_files, colour_files, compressed_files):
        for name, ds, windows in files():
            path = out / f"{name}.dcm"
            ds.save_as(path, enforce_file_format=True)
            for frame in range(int(ds.get("NumberOfFrames", 1))):
                for window in windows:
                    case = write_case(path, out, f"{name}-{frame}-{window}.png", frame, window)
                    cases.append({**case, "file": path.name})
    for name, ds, message in refused_files():
        ds.save_as(out / f"{name}.dcm", enforce_file_format=True)
        cases.append({"file": f"{name}.dcm", "error": message})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 1e3:.0f} kB in {out}")


if __name__ == "__main__":
    main()
