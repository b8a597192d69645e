//! From encoded bytes to 8-bit RGB.

use std::borrow::Cow;
use std::io::{BufRead, Cursor, Seek};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use crate::file_kind::{GIT_LFS_POINTER, is_git_lfs_pointer};
use crate::format::{FORMATS, extension_of, is_decoded, unread_format};
use crate::{Error, Reduced, Result, jpeg};

/// The most pixels that are decoded, twice Pillow's `MAX_IMAGE_PIXELS`, where Pillow too calls a file a bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The most bytes of an encoded image: no photograph has as many.
pub const MAX_BYTES: usize = 1 << 28;

/// Decodes JPEG, PNG, WebP, GIF, BMP, TIFF or PNM of any colour type to 8-bit RGB, turned as its EXIF
/// orientation says, with transparent pixels over `background`.
///
/// The format is told from the bytes, never from a name. 16-bit channels are rounded to 8 bits, numbers from
/// 0 to 1 are scaled, grey is repeated, CMYK is converted without a profile as Pillow does, other profiles
/// are ignored as Pillow does; of an animation the first frame is taken, of a TIFF the first page.
///
/// Errors: another format, a corrupt or truncated file, more than [`MAX_PIXELS`] or [`MAX_BYTES`]. No input
/// panics.
///
/// ```
/// let pair = &mm_data::emoji::pairs(Default::default())[0];
/// let image = mm_data::decode(pair.png, [255, 255, 255])?;
/// assert_eq!(image.dimensions(), (72, 72));
/// assert_eq!(image.get_pixel(0, 0).0, [255, 255, 255]); // the corner is transparent
/// # Ok::<(), mm_data::Error>(())
/// ```
pub fn decode(bytes: &[u8], background: [u8; 3]) -> Result<RgbImage> {
    decode_reduced(bytes, background, |_, _| 1).map(|reduced| reduced.pixels.into_owned())
}

/// As [`decode`], but gives a JPEG at a half, a quarter or an eighth of its width and height where that is
/// allowed, in a fraction of the time. `most` is told the image's width and height, after the turn that EXIF
/// asks for, and gives the largest divisor that will do: [`largest_divisor`](crate::largest_divisor) of what
/// the image is resized to. The divisor depends on that and on the file alone.
///
/// A pixel of a reduced image stands for a square of the whole one, computed from the lower frequencies of
/// each block. Grey and YCbCr JPEGs with Huffman codes are reduced, which are nearly all; others are decoded
/// whole.
///
/// Errors: those of [`decode`].
pub fn decode_reduced(
    bytes: &[u8],
    background: [u8; 3],
    most: impl FnOnce(u32, u32) -> u32,
) -> Result<Reduced<'static>> {
    if bytes.len() > MAX_BYTES {
        return Err(bad(format!("{} bytes are more than {MAX_BYTES}: scale it down", bytes.len())));
    }
    let (format, mut decoder) = open(Cursor::new(bytes))?;
    let orientation = decoder.orientation().map_err(|error| bad(error.to_string()))?;
    let (width, height) = turned(decoder.dimensions(), orientation);
    let most = most(width, height);
    let reduced = (format == ImageFormat::Jpeg)
        .then(|| jpeg::decode_reduced(bytes, decoder.dimensions(), most))
        .flatten();
    let (mut image, divisor) = match reduced {
        Some((image, divisor)) => (DynamicImage::from(image), divisor),
        None => {
            if format == ImageFormat::Jpeg && is_truncated_jpeg(bytes) {
                return Err(bad("the JPEG has no end: it is truncated"));
            }
            (DynamicImage::from_decoder(decoder).map_err(|error| bad(error.to_string()))?, 1)
        }
    };
    image.apply_orientation(orientation);
    let pixels = match image {
        DynamicImage::ImageRgb8(rgb) => rgb,
        image if image.color().has_alpha() => over(&image, background),
        image => image.into_rgb8(),
    };
    Ok(Reduced { pixels: Cow::Owned(pixels), divisor, width, height })
}

/// Width and height after a turn.
fn turned((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    if orientation.to_exif() >= 5 { (height, width) } else { (width, height) }
}

/// What an encoded image says of itself before its pixels are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// One of those that [`decode`] takes.
    pub format: ImageFormat,
    /// Width in pixels, after the turn that EXIF asks for.
    pub width: u32,
    /// Height in pixels, after the same turn.
    pub height: u32,
}

impl Header {
    /// Reads the beginning of an image; what follows may still be corrupt.
    ///
    /// Errors: another format than [`decode`] takes, a corrupt beginning, too many pixels.
    pub fn read(encoded: impl BufRead + Seek) -> Result<Self> {
        let (format, mut decoder) = open(encoded)?;
        let orientation = decoder.orientation().map_err(|error| bad(error.to_string()))?;
        let (width, height) = turned(decoder.dimensions(), orientation);
        Ok(Self { format, width, height })
    }

    /// The short side in pixels.
    pub fn short_side(&self) -> u32 {
        self.width.min(self.height)
    }

    /// The long side over the short one: 1 is a square.
    pub fn aspect(&self) -> f64 {
        f64::from(self.width.max(self.height)) / f64::from(self.short_side())
    }

    /// What files of this format end in: `jpg`, `png`, `webp`, `gif`, `bmp`, `tif` or `ppm`.
    pub fn extension(&self) -> &'static str {
        extension_of(self.format)
    }
}

/// A decoder that has read the header, of an image that may be decoded.
fn open<'a>(mut encoded: impl BufRead + Seek + 'a) -> Result<(ImageFormat, impl ImageDecoder + 'a)> {
    let head = encoded.fill_buf().map_err(|error| bad(error.to_string()))?;
    if head.is_empty() {
        return Err(bad("the file is empty"));
    }
    if is_git_lfs_pointer(head) {
        return Err(bad(GIT_LFS_POINTER));
    }
    let unread = unread_format(head);
    let reader = ImageReader::new(encoded).with_guessed_format().map_err(|error| bad(error.to_string()))?;
    let Some(format) = reader.format().filter(|format| is_decoded(*format)) else {
        return Err(bad(match unread {
            Some(name) => format!("it is {name}, which is not read: convert it to JPEG, PNG or WebP"),
            None => format!("neither {FORMATS}: convert it to one of these"),
        }));
    };
    let decoder = reader.into_decoder().map_err(|error| bad(error.to_string()))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(bad(format!("{width} x {height} pixels")));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(bad(format!("{width} x {height} is more than {MAX_PIXELS} pixels: scale it down")));
    }
    Ok((format, decoder))
}

/// Lays an image with alpha over an even background.
fn over(image: &DynamicImage, background: [u8; 3]) -> RgbImage {
    let rgba = image.to_rgba8();
    let mut out = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in out.pixels_mut().zip(rgba.pixels()) {
        let alpha = u32::from(from[3]);
        for channel in 0..3 {
            let sum = u32::from(from[channel]) * alpha + u32::from(background[channel]) * (255 - alpha);
            to[channel] = ((sum + 127) / 255) as u8;
        }
    }
    out
}

/// The JPEG decoder fills what is missing with grey and says nothing. A whole file has an end-of-image marker
/// after its last start-of-scan marker; neither can stand inside compressed data. Bytes after the end are
/// allowed.
fn is_truncated_jpeg(bytes: &[u8]) -> bool {
    let last = |code: u8| bytes.windows(2).rposition(|pair| pair == [0xff, code]);
    last(0xd9).is_none() || last(0xd9) < last(0xda)
}

fn bad(reason: impl Into<String>) -> Error {
    Error::Decode { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, ImageEncoder, Luma, LumaA, Rgb, Rgba};

    use super::*;

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_colour_type_becomes_rgb() {
        let one =
            |image: DynamicImage| decode(&encoded(image, ImageFormat::Png), [255, 0, 0]).unwrap()[(0, 0)].0;
        assert_eq!(one(ImageBuffer::from_pixel(2, 2, Luma([7u8])).into()), [7, 7, 7]);
        assert_eq!(one(ImageBuffer::from_pixel(2, 2, Luma([0x8080u16])).into()), [128, 128, 128]);
        assert_eq!(one(ImageBuffer::from_pixel(2, 2, LumaA([9u8, 255])).into()), [9, 9, 9]);
        assert_eq!(one(ImageBuffer::from_pixel(2, 2, Rgb([1u8, 2, 3])).into()), [1, 2, 3]);
        assert_eq!(one(ImageBuffer::from_pixel(2, 2, Rgb([0xffffu16, 0, 0x0101])).into()), [255, 0, 1]);
        assert_eq!(one(ImageBuffer::from_pixel(2, 2, Rgba([1u8, 2, 3, 0])).into()), [255, 0, 0]);
        assert_eq!(one(ImageBuffer::from_pixel(2, 2, Rgba([0u16, 0, 0xffff, 0x8000])).into()), [127, 0, 128]);
    }

    #[test]
    fn exif_orientation_is_applied() {
        // A wide image, red at its left, and the EXIF block that says it was turned by 90 degrees clockwise.
        let image =
            RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut png = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        encoder.write_image(&image, 32, 16, image::ExtendedColorType::Rgb8).unwrap();
        let turned = decode(&png, [0; 3]).unwrap();
        assert_eq!(turned.dimensions(), (16, 32));
        assert_eq!((turned[(0, 0)].0, turned[(0, 31)].0), ([255, 0, 0], [0, 0, 255]));
        let header = Header::read(Cursor::new(&png)).unwrap();
        assert_eq!((header.width, header.height, header.extension()), (16, 32, "png"));
    }

    #[test]
    fn no_whole_image_is_an_error_that_says_why() {
        let say = |bytes: &[u8]| decode(bytes, [0; 3]).unwrap_err().to_string();
        assert!(say(b"").contains("the file is empty"));
        assert!(say(b"version https://git-lfs.github.com/spec/v1\noid").contains("run `git lfs pull`"));
        assert!(say(b"some text").contains("neither JPEG, PNG, WebP, GIF, BMP, TIFF or PNM"));
        assert!(say(b"\0\0\0\x20ftypavif\0\0\0\0").contains("it is AVIF, which is not read: convert it"));
        assert!(say(b"GIF89a hello").starts_with("cannot decode the image"));
        let image = RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8 * 3, y as u8 * 3, (x ^ y) as u8]));
        use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
        for format in [Png, Jpeg, WebP, Gif, Bmp, Tiff, Pnm] {
            let bytes = encoded(image.clone(), format);
            assert!(decode(&bytes, [0; 3]).is_ok());
            assert!(decode(&bytes[..bytes.len() / 2], [0; 3]).is_err(), "half a {format:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        let mut png = encoded(ImageBuffer::from_pixel(1, 1, Luma([0u8])), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]); // 65,536 x 65,536
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let said = decode(&png, [0; 3]).unwrap_err().to_string();
        assert!(said.contains("65536 x 65536"), "{said}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8)
                .fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
        })
    }
}
