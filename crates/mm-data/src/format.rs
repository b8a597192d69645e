//! The kinds of image file: the one list of extensions, and what is said of the kinds that are not decoded.

use image::ImageFormat;

/// The extensions of images that are decoded, in lower case. Where a sample of a tar has several images, the
/// first of these is taken.
pub const IMAGE_EXTENSIONS: [&str; 14] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];

/// The formats that are decoded, as messages list them.
pub(crate) const FORMATS: &str = "JPEG, PNG, WebP, GIF, BMP, TIFF or PNM";

/// Whether a file of this extension, without its dot, should be an image that is decoded. Upper and lower
/// case are one.
pub fn is_image_extension(extension: &str) -> bool {
    IMAGE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether files of this format are decoded.
pub(crate) fn is_decoded(format: ImageFormat) -> bool {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    matches!(format, Jpeg | Png | WebP | Gif | Bmp | Tiff | Pnm)
}

/// What files of a decoded format end in.
pub(crate) fn extension_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "jpg",
        ImageFormat::WebP => "webp",
        ImageFormat::Gif => "gif",
        ImageFormat::Bmp => "bmp",
        ImageFormat::Tiff => "tif",
        ImageFormat::Pnm => "ppm",
        _ => "png",
    }
}

/// The name of a known format that is not decoded, by its first bytes.
pub(crate) fn unread_format(bytes: &[u8]) -> Option<&'static str> {
    let text = || String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_lowercase();
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4) {
            Some(b"avif" | b"avis") => Some("AVIF"),
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1") => Some("HEIC"),
            _ => Some("a video or another file of the MP4 family"),
        },
        [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [0, 0, 0, 0x0c, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => Some("JPEG 2000"),
        [b'8', b'B', b'P', b'S', ..] => Some("a Photoshop file"),
        [b'%', b'P', b'D', b'F', ..] => Some("a PDF"),
        _ if text().starts_with("<svg") || text().starts_with("<?xml") && text().contains("<svg") => {
            Some("SVG")
        }
        _ if text().starts_with("<!doctype html") || text().starts_with("<html") => {
            Some("a web page, probably what a server said in place of the image")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_is_that_of_a_decoded_format() {
        for extension in IMAGE_EXTENSIONS {
            // `jpe` is a JPEG's too; the library does not know it.
            let format =
                ImageFormat::from_extension(extension).or((extension == "jpe").then_some(ImageFormat::Jpeg));
            assert!(format.is_some_and(is_decoded), "{extension}");
            assert!(is_image_extension(&extension.to_uppercase()));
        }
        assert!(!is_image_extension("avif") && !is_image_extension(""));
    }

    #[test]
    fn formats_that_are_not_decoded_are_named() {
        assert_eq!(unread_format(b"\0\0\0\x20ftypavif\0\0\0\0"), Some("AVIF"));
        assert_eq!(unread_format(b"\0\0\0\x18ftypmif1"), Some("HEIC"));
        assert_eq!(unread_format(b"\xff\x0a\0"), Some("JPEG XL"));
        assert_eq!(unread_format(b"<?xml version='1.0'?>\n<svg width='1'/>"), Some("SVG"));
        assert!(unread_format(b"\n<!DOCTYPE html><title>404").unwrap().contains("web page"));
        assert_eq!(
            (unread_format(b""), unread_format(b"\0\0\0\0ftyp"), unread_format(b"GIF89a")),
            (None, Some("a video or another file of the MP4 family"), None)
        );
    }
}
