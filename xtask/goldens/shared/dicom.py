"""pydicom's pixels of DICOM files, scaled to 8 bits."""

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_rescale, apply_voi, apply_windowing, pixel_array
from pydicom.uid import JPEGBaseline8Bit


def pixels(ds, frame):
    """pydicom's pixels. Its plugins differ by up to 5 levels on JPEGs with subsampled chroma; Pillow's
    decoder, libjpeg-turbo, is the one that other goldens are made with too."""
    is_baseline = ds.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    return pixel_array(ds, index=frame, decoding_plugin="pillow" if is_baseline else "")


def count(number):
    """NumberOfFrames, which may be missing, empty or 0."""
    return max(int(number or 1), 1)


def with_groups(ds, frame):
    """The data set with the rescale and the window of a frame of an enhanced image, which pydicom leaves in
    their functional groups."""
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    for groups in list(shared)[:1] + list(per_frame)[frame:frame + 1]:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in list(groups.get(name) or [])[:1]:
                for element in item:
                    ds[element.tag] = element
    return ds


def level(array, low, high):
    return np.floor((array.astype(np.float64) - low) / (high - low) * 255 + 0.5).clip(0, 255).astype(np.uint8)


def values(ds, frame):
    """A grey frame after the rescale or the modality lookup table."""
    return apply_rescale(pixels(ds, frame), ds).astype(np.float64)


def windowed(ds, array, number):
    """The window or table of a number, tables first; the range of the frame where there is none."""
    tables = len(ds.get("VOILUTSequence") or [])
    if number < tables:
        bits = ds.VOILUTSequence[number].LUTDescriptor[2]
        return level(apply_voi(array, ds, number), 0, 2**bits - 1)
    if ds.get("WindowCenter") is None or ds.get("WindowWidth") is None:
        high = array.max()
        return level(array, array.min(), high if high > array.min() else array.min() + 1)
    shown = apply_windowing(array, ds, number - tables)
    # apply_windowing gives the range of the stored values, rescaled (PS3.3 C.11.2.1.2).
    low, high = 0, 2**ds.BitsStored - 1
    if ds.get("ModalityLUTSequence"):
        high = 2**ds.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    elif ds.PixelRepresentation == 1:
        low, high = -(2 ** (ds.BitsStored - 1)), 2 ** (ds.BitsStored - 1) - 1
    if ds.get("RescaleSlope") is not None and ds.get("RescaleIntercept") is not None:
        low, high = (v * ds.RescaleSlope + ds.RescaleIntercept for v in (low, high))
    return level(shown, low, high)


def swap_palettes(ds):
    """apply_color_lut takes the 16-bit entries of big-endian files for little-endian ones (pydicom 3.0.2)."""
    for name in ("Red", "Green", "Blue"):
        element = ds.get(f"{name}PaletteColorLookupTableData") and ds[f"{name}PaletteColorLookupTableData"]
        if element and ds[f"{name}PaletteColorLookupTableDescriptor"].value[2] == 16:
            element.value = np.frombuffer(element.value, "<u2").byteswap().tobytes()


def rendered(ds, frame, number):
    """A frame as 8-bit grey or RGB."""
    ds = with_groups(ds, frame)
    photometric = ds.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        if not ds.original_encoding[1]:
            swap_palettes(ds)
        colours = apply_color_lut(pixels(ds, frame), ds)[..., :3]
        bits = min(8 * colours.dtype.itemsize, ds.RedPaletteColorLookupTableDescriptor[2])
        return level(colours, 0, 2**bits - 1)
    if ds.SamplesPerPixel == 3:
        return level(pixels(ds, frame), 0, 2**ds.BitsStored - 1)
    grey = windowed(ds, values(ds, frame), number)
    return 255 - grey if photometric == "MONOCHROME1" else grey


def write_case(path, out, name, frame, number):
    """Renders a frame to `out / name`, and returns its row of the index. `levels` is the allowed difference:
    decoders of JPEG round chroma differently."""
    ds = pydicom.dcmread(path, force=True)
    image = rendered(ds, frame, number)
    Image.fromarray(image).save(out / name)
    is_lossy_colour = ds.file_meta.TransferSyntaxUID == JPEGBaseline8Bit and ds.SamplesPerPixel == 3
    levels = 3 if is_lossy_colour else 1
    return {"file": str(path), "frame": frame, "window": number, "image": name, "levels": levels}
