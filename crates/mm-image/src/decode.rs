//! From encoded bytes to 8-bit RGB.

use std::borrow::Cow;
use std::io::{BufRead, Cursor, Seek};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use crate::format::{
    FORMATS, GIT_LFS_POINTER, extension_of, is_decoded, is_git_lfs_pointer, unsupported_format,
};
use crate::{Error, Reduced, Result, jpeg};

/// The limit on the pixels of an image: twice Pillow's `MAX_IMAGE_PIXELS`, where Pillow raises
/// `DecompressionBombError`.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The limit on the bytes of an encoded image.
pub const MAX_BYTES: usize = 1 << 28;

/// Decodes JPEG, PNG, WebP, GIF, BMP, TIFF or PNM of any colour type to 8-bit RGB. The EXIF orientation is
/// applied, and transparent pixels are composited over `background`.
///
/// The format is detected from the bytes, never from a file name. 16-bit channels are rounded to 8 bits,
/// floats from 0 to 1 are scaled, and grey is repeated. As in Pillow, CMYK is converted without a profile and
/// other color profiles are ignored. An animation gives its first frame, a TIFF its first page.
///
/// # Errors
/// An unsupported format, a corrupt or truncated file, more than [`MAX_PIXELS`] or [`MAX_BYTES`]. No input
/// panics.
///
/// ```
/// use mm_image::{decode, image};
///
/// let mut png = std::io::Cursor::new(Vec::new());
/// image::RgbaImage::new(72, 48).write_to(&mut png, image::ImageFormat::Png)?; // transparent
/// let image = decode(png.get_ref(), [255, 255, 255])?;
/// assert_eq!(image.dimensions(), (72, 48));
/// assert_eq!(image[(0, 0)].0, [255, 255, 255]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode(bytes: &[u8], background: [u8; 3]) -> Result<RgbImage> {
    decode_reduced(bytes, background, |_, _| 1).map(|reduced| reduced.pixels.into_owned())
}

/// As [`decode`], but decodes a JPEG at 1/2, 1/4 or 1/8 of its width and height where `largest` allows it, in
/// a fraction of the time. `largest` maps the image's width and height (EXIF orientation applied) to the
/// largest allowed divisor, such as [`largest_divisor`](crate::largest_divisor) of the size that the image is
/// resized to. The divisor depends on this limit and on the file alone.
///
/// Each pixel of a reduced image stands for a square of the full image, computed from the low frequencies of
/// each block. Grey and YCbCr JPEGs with Huffman codes, nearly all JPEGs, are reduced; other images are
/// decoded at full size.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_reduced(
    bytes: &[u8],
    background: [u8; 3],
    largest: impl FnOnce(u32, u32) -> u32,
) -> Result<Reduced<'static>> {
    if bytes.len() > MAX_BYTES {
        return Err(bad(format!("{} bytes are more than {MAX_BYTES}: scale it down", bytes.len())));
    }
    let (format, mut decoder) = open(Cursor::new(bytes))?;
    let orientation = decoder.orientation().map_err(|error| bad(error.to_string()))?;
    let (width, height) = oriented(decoder.dimensions(), orientation);
    let largest = largest(width, height);
    let reduced = (format == ImageFormat::Jpeg)
        .then(|| jpeg::decode_reduced(bytes, decoder.dimensions(), largest))
        .flatten();
    let (mut image, divisor) = match reduced {
        Some((image, divisor)) => (DynamicImage::from(image), divisor),
        None => {
            if format == ImageFormat::Jpeg && is_truncated_jpeg(bytes) {
                return Err(bad("the JPEG has no end-of-image marker: it is truncated"));
            }
            (DynamicImage::from_decoder(decoder).map_err(|error| bad(error.to_string()))?, 1)
        }
    };
    image.apply_orientation(orientation);
    let pixels = match image {
        DynamicImage::ImageRgb8(rgb) => rgb,
        image if image.color().has_alpha() => composite(&image, background),
        image => image.into_rgb8(),
    };
    Ok(Reduced { pixels: Cow::Owned(pixels), divisor, width, height })
}

/// Width and height with the EXIF orientation applied.
fn oriented((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    if orientation.to_exif() >= 5 { (height, width) } else { (width, height) }
}

/// Format and size of an encoded image, read without decoding its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// One of the formats that [`decode`] supports.
    pub format: ImageFormat,
    /// Width in pixels, with the EXIF orientation applied.
    pub width: u32,
    /// Height in pixels, with the EXIF orientation applied.
    pub height: u32,
}

impl Header {
    /// Reads the header of an image. The rest of the file may still be corrupt.
    ///
    /// # Errors
    /// A format that [`decode`] does not support, a corrupt header, more than [`MAX_PIXELS`].
    pub fn read(encoded: impl BufRead + Seek) -> Result<Self> {
        let (format, mut decoder) = open(encoded)?;
        let orientation = decoder.orientation().map_err(|error| bad(error.to_string()))?;
        let (width, height) = oriented(decoder.dimensions(), orientation);
        Ok(Self { format, width, height })
    }

    /// The short side in pixels.
    pub fn short_side(&self) -> u32 {
        self.width.min(self.height)
    }

    /// The long side divided by the short side: 1 is a square.
    pub fn aspect(&self) -> f64 {
        f64::from(self.width.max(self.height)) / f64::from(self.short_side())
    }

    /// The file name extension of the format: `jpg`, `png`, `webp`, `gif`, `bmp`, `tif` or `ppm`.
    pub fn extension(&self) -> &'static str {
        extension_of(self.format)
    }
}

/// Reads the header and checks that the image is supported and not too large.
fn open<'a>(mut encoded: impl BufRead + Seek + 'a) -> Result<(ImageFormat, impl ImageDecoder + 'a)> {
    let head = encoded.fill_buf().map_err(|error| bad(error.to_string()))?;
    if head.is_empty() {
        return Err(bad("the file is empty"));
    }
    if is_git_lfs_pointer(head) {
        return Err(bad(GIT_LFS_POINTER));
    }
    let unsupported = unsupported_format(head);
    let reader = ImageReader::new(encoded).with_guessed_format().map_err(|error| bad(error.to_string()))?;
    let Some(format) = reader.format().filter(|format| is_decoded(*format)) else {
        return Err(bad(match unsupported {
            Some(name) => format!("it is {name}, which is not supported: convert it to JPEG, PNG or WebP"),
            None => format!("it is not {FORMATS}: convert it to one of these"),
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

/// Composites an image with an alpha channel over a uniform background.
fn composite(image: &DynamicImage, background: [u8; 3]) -> RgbImage {
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

/// The JPEG decoder fills missing data with grey and reports no error. A complete file has an end-of-image
/// marker after its last start-of-scan marker; neither occurs inside compressed data. Bytes after the end are
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
        // A wide image, red on the left, with an EXIF block for a rotation by 90 degrees clockwise.
        let image =
            RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut png = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        encoder.write_image(&image, 32, 16, image::ExtendedColorType::Rgb8).unwrap();
        let rotated = decode(&png, [0; 3]).unwrap();
        assert_eq!(rotated.dimensions(), (16, 32));
        assert_eq!((rotated[(0, 0)].0, rotated[(0, 31)].0), ([255, 0, 0], [0, 0, 255]));
        let header = Header::read(Cursor::new(&png)).unwrap();
        assert_eq!((header.width, header.height, header.extension()), (16, 32, "png"));
    }

    #[test]
    fn bytes_that_are_not_a_complete_image_give_the_reason() {
        let reason = |bytes: &[u8]| decode(bytes, [0; 3]).unwrap_err().to_string();
        assert!(reason(b"").contains("the file is empty"));
        assert!(reason(b"version https://git-lfs.github.com/spec/v1\noid").contains("run `git lfs pull`"));
        assert!(reason(b"some text").contains("it is not JPEG, PNG, WebP, GIF, BMP, TIFF or PNM"));
        assert!(
            reason(b"\0\0\0\x20ftypavif\0\0\0\0").contains("it is AVIF, which is not supported: convert it")
        );
        assert!(reason(b"GIF89a hello").starts_with("cannot decode the image"));
        let image = RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8 * 3, y as u8 * 3, (x ^ y) as u8]));
        use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
        for format in [Png, Jpeg, WebP, Gif, Bmp, Tiff, Pnm] {
            let bytes = encoded(image.clone(), format);
            assert!(decode(&bytes, [0; 3]).is_ok());
            assert!(decode(&bytes[..bytes.len() / 2], [0; 3]).is_err(), "half a {format:?}");
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_is_decoded() {
        let mut png = encoded(ImageBuffer::from_pixel(1, 1, Luma([0u8])), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]); // 65,536 x 65,536
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let message = decode(&png, [0; 3]).unwrap_err().to_string();
        assert!(message.contains("65536 x 65536"), "{message}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8)
                .fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
        })
    }
}
