//! Colours to 8-bit RGB.

use mm_image::RgbImage;

use super::lut::LookupTable;
use super::pixels::{Frame, Layout, Photometric};

/// The RGB of three samples a pixel. Samples of more than 8 bits are scaled.
pub(super) fn rgb(frame: &Frame, layout: &Layout) -> Vec<u8> {
    let levels: Vec<u8> = if frame.width == 1 && frame.bits == 8 {
        frame.bytes.to_vec()
    } else {
        let max = ((1u64 << frame.bits) - 1) as f32;
        frame.values(layout).iter().map(|value| (value / max * 255.0).round() as u8).collect()
    };
    let pixels = layout.frame_pixels();
    let mut out = if frame.is_planar {
        (0..pixels).flat_map(|at| [levels[at], levels[pixels + at], levels[2 * pixels + at]]).collect()
    } else {
        levels
    };
    if frame.photometric == Photometric::Ybr {
        out.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = rgb_of_ybr(*pixel));
    }
    out
}

/// PS3.3 section C.7.6.3.1.2, inverted: ITU-R 601 luma and chroma over the full range.
fn rgb_of_ybr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    let red = y + 1.402 * cr;
    let green = y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr;
    let blue = y + 1.772 * cb;
    // Halves are rounded up, as in pydicom; a negative number becomes 0.
    [red, green, blue].map(|level| (level + 0.5).floor() as u8)
}

/// The colours of a palette's indices.
pub(super) fn palette(indices: &[f32], tables: &[LookupTable; 3]) -> Vec<u8> {
    indices.iter().flat_map(|index| tables.each_ref().map(|table| table.level(*index))).collect()
}

/// An image of RGB bytes, which have its size.
pub(super) fn image(bytes: Vec<u8>, layout: &Layout) -> RgbImage {
    RgbImage::from_raw(layout.columns, layout.rows, bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ybr_of_primary_colours_is_rgb() {
        // The rounded YBR of each, by the equations of PS3.3 C.7.6.3.1.2.
        assert_eq!(rgb_of_ybr([76, 85, 255]), [254, 0, 0]);
        assert_eq!(rgb_of_ybr([150, 44, 21]), [0, 255, 1]);
        assert_eq!(rgb_of_ybr([128, 128, 128]), [128, 128, 128]);
        assert_eq!(rgb_of_ybr([255, 128, 255]), [255, 164, 255]);
    }
}
