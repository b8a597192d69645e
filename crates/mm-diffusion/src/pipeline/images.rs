//! Between pictures and the tensors of models.

use mm_image::RgbImage;
use mm_image::image::imageops::{FilterType, resize};
use mm_image::resize::{Filter, exact};
use tch::{Kind, Tensor};

/// The picture as `[1, 3, H, W]` in -1 to 1, resized to `width` x `height` as diffusers does.
pub(crate) fn to_pixel_values(image: &RgbImage, width: i64, height: i64) -> Tensor {
    let image = resized(image, width, height);
    let bytes = Tensor::from_slice(image.as_raw()).view([1, height, width, 3]);
    bytes.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous() / 127.5 - 1.0
}

/// `images`, all of one size, as `[B, 3, H, W]` in -1 to 1.
pub(crate) fn stack_pixel_values<'a>(images: impl IntoIterator<Item = &'a RgbImage>) -> Tensor {
    let each = images.into_iter().map(|image| {
        let (width, height) = image.dimensions();
        to_pixel_values(image, width.into(), height.into())
    });
    Tensor::cat(&each.collect::<Vec<_>>(), 0)
}

/// The mask as `[1, 1, H, W]`: 1 where it is at least half white, which is repainted.
pub(super) fn to_mask(mask: &RgbImage, width: i64, height: i64) -> Tensor {
    let mut grays = mask.clone();
    for pixel in grays.pixels_mut() {
        pixel.0 = [gray(pixel.0); 3];
    }
    let resized = resized(&grays, width, height);
    let values: Vec<f32> = resized.pixels().map(|pixel| f32::from(u8::from(pixel.0[0] >= 128))).collect();
    Tensor::from_slice(&values).view([1, 1, height, width])
}

/// Pillow's conversion to gray, of ITU-R BT.601.
pub(crate) fn gray([r, g, b]: [u8; 3]) -> u8 {
    ((19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 0x8000) >> 16) as u8
}

fn resized(image: &RgbImage, width: i64, height: i64) -> RgbImage {
    match image.dimensions() == (width as u32, height as u32) {
        true => image.clone(),
        false => exact(image, width as u32, height as u32, Filter::Lanczos),
    }
}

/// Pixels `[N, 3, H, W]`, about -1 to 1, as pictures.
pub(crate) fn to_pictures(pixels: &Tensor) -> Vec<RgbImage> {
    let (count, _, height, width) = pixels.size4().expect("pixels are [N, 3, H, W]");
    let levels = (pixels.to_kind(Kind::Float) / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
    let levels = levels.round().to_kind(Kind::Uint8).permute([0, 2, 3, 1]).contiguous();
    let picture = |index: i64| {
        let mut picture = RgbImage::new(width as u32, height as u32);
        let bytes = picture.as_mut();
        levels.get(index).to_device(tch::Device::Cpu).view([-1]).copy_data_u8(bytes, bytes.len());
        picture
    };
    (0..count).map(picture).collect()
}

/// The least side in pixels of a picture on a page.
const SIDE: u32 = 128;

/// The picture for a page: a small one with its pixels repeated.
pub fn enlarged(picture: &RgbImage) -> RgbImage {
    let factor = SIDE / picture.width().max(picture.height()).max(1);
    match factor {
        0 | 1 => mm_data::html::thumbnail(picture, 2 * SIDE),
        factor => resize(picture, picture.width() * factor, picture.height() * factor, FilterType::Nearest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_back_from_its_pixel_values() {
        let picture = RgbImage::from_fn(5, 4, |x, y| [x as u8 * 50, y as u8 * 60, 255].into());
        assert_eq!(to_pictures(&to_pixel_values(&picture, 5, 4)), [picture]);
    }

    #[test]
    fn a_mask_is_white_from_half_on() {
        let mask = RgbImage::from_fn(3, 1, |x, _| [[0; 3], [127; 3], [128; 3]][x as usize].into());
        assert_eq!(to_mask(&mask, 3, 1), Tensor::from_slice(&[0f32, 0.0, 1.0]).view([1, 1, 1, 3]));
    }
}
