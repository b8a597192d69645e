//! The supported image formats and their extensions, and the names of formats that are not supported.

use image::ImageFormat;

/// The extensions of supported image files, in lower case. Where a WebDataset sample has several images, the
/// one with the first of these extensions is read.
pub const IMAGE_EXTENSIONS: [&str; 14] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];

/// The supported formats, as messages list them.
pub(crate) const FORMATS: &str = "JPEG, PNG, WebP, GIF, BMP, TIFF or PNM";

/// Whether `extension`, without its dot, is one of [`IMAGE_EXTENSIONS`], in upper or lower case.
pub fn is_image_extension(extension: &str) -> bool {
    IMAGE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether the format is supported.
pub(crate) fn is_decoded(format: ImageFormat) -> bool {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    matches!(format, Jpeg | Png | WebP | Gif | Bmp | Tiff | Pnm)
}

/// The file name extension of a supported format.
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

/// The reason given for a [Git LFS pointer](is_git_lfs_pointer).
pub const GIT_LFS_POINTER: &str = "a Git LFS pointer, not the file itself: run `git lfs pull`";

/// Whether a file that begins with these bytes is a Git LFS pointer: the text that Git LFS leaves in place of
/// a file that was not fetched. (`mm_core::checkpoint` has the same check: mm-core does not depend on
/// images.)
///
/// ```
/// assert!(mm_image::is_git_lfs_pointer(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"));
/// ```
pub fn is_git_lfs_pointer(head: &[u8]) -> bool {
    head.starts_with(b"version https://git-lfs.")
}

/// The name of a known format that is not supported, detected from the first bytes of a file.
pub(crate) fn unsupported_format(bytes: &[u8]) -> Option<&'static str> {
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
            Some("a web page, probably a server's error page in place of the image")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_is_that_of_a_supported_format() {
        for extension in IMAGE_EXTENSIONS {
            // The library does not list `jpe`, another extension of JPEG.
            let format =
                ImageFormat::from_extension(extension).or((extension == "jpe").then_some(ImageFormat::Jpeg));
            assert!(format.is_some_and(is_decoded), "{extension}");
            assert!(is_image_extension(&extension.to_uppercase()));
        }
        assert!(!is_image_extension("avif") && !is_image_extension(""));
    }

    #[test]
    fn formats_that_are_not_supported_are_named() {
        assert_eq!(unsupported_format(b"\0\0\0\x20ftypavif\0\0\0\0"), Some("AVIF"));
        assert_eq!(unsupported_format(b"\0\0\0\x18ftypmif1"), Some("HEIC"));
        assert_eq!(unsupported_format(b"\xff\x0a\0"), Some("JPEG XL"));
        assert_eq!(unsupported_format(b"<?xml version='1.0'?>\n<svg width='1'/>"), Some("SVG"));
        assert!(unsupported_format(b"\n<!DOCTYPE html><title>404").unwrap().contains("web page"));
        assert_eq!(
            (unsupported_format(b""), unsupported_format(b"\0\0\0\0ftyp"), unsupported_format(b"GIF89a")),
            (None, Some("a video or another file of the MP4 family"), None)
        );
    }
    #[test]
    fn text_that_begins_with_version_is_no_git_lfs_pointer() {
        assert!(!is_git_lfs_pointer(b"version 2 of the captions"));
    }
}
