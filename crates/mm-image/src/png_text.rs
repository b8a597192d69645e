//! Text in PNG files, as programs store how an image was made.
//!
//! A text is a keyword and a value. `tEXt` holds Latin-1, which every reader knows; `iTXt` holds UTF-8 and is
//! written only where Latin-1 does not suffice. Both may stand before or after the pixels.

use std::io::Read;

use flate2::Crc;
use flate2::read::ZlibDecoder;
use png::text_metadata::{ITXtChunk, TEXtChunk};

use crate::{Error, RgbImage};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The limit on the bytes of all texts of a file, decompressed. A prompt has some hundreds.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// The most bytes of a keyword.
const MAX_KEYWORD: usize = 79;

/// Encodes `image` as PNG with `texts`, each a keyword and its value, in this order before the pixels.
///
/// # Errors
/// A keyword is not 1 to 79 printable characters of Latin-1 without spaces at its ends or two in a row, a
/// value has the character NUL, or the image has no pixels.
///
/// ```
/// use mm_image::{RgbImage, read_png_text, write_png_with_text};
///
/// let texts = [("parameters", "a red star\nSteps: 20"), ("title", "étoile 星")];
/// let png = write_png_with_text(&RgbImage::new(8, 8), &texts)?;
/// assert_eq!(read_png_text(&png)?[1], ("title".to_owned(), "étoile 星".to_owned()));
/// # Ok::<(), mm_image::Error>(())
/// ```
pub fn write_png_with_text(image: &RgbImage, texts: &[(&str, &str)]) -> crate::Result<Vec<u8>> {
    for (keyword, value) in texts {
        check(keyword, value).map_err(Error::Setting)?;
    }
    let failed = |error: png::EncodingError| Error::Setting(format!("cannot encode the PNG: {error}"));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    for &(keyword, value) in texts {
        if value.chars().all(is_latin1) {
            writer.write_text_chunk(&TEXtChunk::new(keyword, value)).map_err(failed)?;
        } else {
            writer.write_text_chunk(&ITXtChunk::new(keyword, value)).map_err(failed)?;
        }
    }
    writer.write_image_data(image.as_raw()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

fn is_latin1(c: char) -> bool {
    u32::from(c) < 256
}

/// Checks a text by the rules of the PNG specification, which encoders do not check.
fn check(keyword: &str, value: &str) -> Result<(), String> {
    let is_printable = |c: char| is_latin1(c) && !c.is_control() && c != '\u{a0}';
    let is_spaced = keyword.trim_matches(' ') == keyword && !keyword.contains("  ");
    let is_valid = (1..=MAX_KEYWORD).contains(&keyword.chars().count()) && keyword.chars().all(is_printable);
    if !is_valid || !is_spaced {
        return Err(format!(
            "the keyword {keyword:?} of a PNG's text: it must have 1 to {MAX_KEYWORD} printable characters \
             of Latin-1, without spaces at its ends or two in a row"
        ));
    }
    match value.contains('\0') {
        true => Err(format!("the PNG's text {keyword:?} has the character NUL, which ends a text")),
        false => Ok(()),
    }
}

/// The texts of a PNG file in their order, of `tEXt`, `zTXt` and `iTXt` chunks. Pixels are not decoded.
///
/// # Errors
/// The bytes are no complete PNG, a text chunk is damaged, or the texts have more than 16 MiB.
pub fn read_png_text(bytes: &[u8]) -> crate::Result<Vec<(String, String)>> {
    read(bytes).map_err(|reason| Error::Decode { reason })
}

fn read(bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut rest = bytes.strip_prefix(SIGNATURE).ok_or("it is not a PNG")?;
    let mut budget = MAX_TEXT_BYTES;
    let mut texts = Vec::new();
    loop {
        let (kind, data) = next_chunk(&mut rest)?;
        let text = match kind {
            b"tEXt" => plain(data, budget),
            b"zTXt" => compressed(data, budget),
            b"iTXt" => international(data, budget),
            b"IEND" => return Ok(texts),
            _ => continue,
        };
        let (keyword, value) =
            text.map_err(|problem| format!("the PNG's {} chunk {problem}", String::from_utf8_lossy(kind)))?;
        // A character of Latin-1 takes up to two bytes in memory.
        budget = budget.saturating_sub(keyword.len() + value.len());
        texts.push((keyword, value));
    }
}

/// The type and data of the chunk at the start of `rest`, which moves behind it. The checksum of text chunks
/// is verified; other chunks are passed over.
fn next_chunk<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8; 4], &'a [u8]), String> {
    let truncated = || "the PNG is truncated".to_owned();
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    let (kind, after_kind) = after.split_first_chunk::<4>().ok_or_else(truncated)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (data, after_data) = after_kind.split_at_checked(length).ok_or_else(truncated)?;
    let (checksum, next) = after_data.split_first_chunk::<4>().ok_or_else(truncated)?;
    if kind.ends_with(b"Xt") {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(data);
        if crc.sum() != u32::from_be_bytes(*checksum) {
            return Err(format!("the PNG's {} chunk has a wrong checksum", String::from_utf8_lossy(kind)));
        }
    }
    *rest = next;
    Ok((kind, data))
}

/// `tEXt`: keyword, NUL, Latin-1.
fn plain(data: &[u8], budget: usize) -> Result<(String, String), String> {
    let (keyword, value) = keyword(data)?;
    within(value, budget)?;
    Ok((keyword, latin1(value)))
}

/// `zTXt`: keyword, NUL, compression method, compressed Latin-1.
fn compressed(data: &[u8], budget: usize) -> Result<(String, String), String> {
    let (keyword, rest) = keyword(data)?;
    let (&method, value) = rest.split_first().ok_or("is too short")?;
    Ok((keyword, latin1(&inflate(method, value, budget)?)))
}

/// `iTXt`: keyword, NUL, compression flag and method, language, NUL, translated keyword, NUL, UTF-8.
fn international(data: &[u8], budget: usize) -> Result<(String, String), String> {
    let (keyword, rest) = keyword(data)?;
    let (&[flag, method], rest) = rest.split_first_chunk::<2>().ok_or("is too short")?;
    let (_language, rest) = until_nul(rest)?;
    let (_translated, value) = until_nul(rest)?;
    let value = match flag {
        0 => within(value, budget)?.to_vec(),
        1 => inflate(method, value, budget)?,
        flag => return Err(format!("has the compression flag {flag}: it is 0 or 1")),
    };
    Ok((keyword, String::from_utf8(value).map_err(|_| "is not UTF-8")?))
}

/// The keyword of a chunk, and what follows it.
fn keyword(data: &[u8]) -> Result<(String, &[u8]), String> {
    let (keyword, rest) = until_nul(data)?;
    match (1..=MAX_KEYWORD).contains(&keyword.len()) {
        true => Ok((latin1(keyword), rest)),
        false => Err(format!("has a keyword of {} bytes: it has 1 to {MAX_KEYWORD}", keyword.len())),
    }
}

fn until_nul(data: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let end = data.iter().position(|&byte| byte == 0).ok_or("has no NUL after its keyword")?;
    Ok((&data[..end], &data[end + 1..]))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn within(value: &[u8], budget: usize) -> Result<&[u8], String> {
    if value.len() > budget { Err(too_long()) } else { Ok(value) }
}

fn too_long() -> String {
    format!("brings the texts to more than {MAX_TEXT_BYTES} bytes")
}

/// Decompresses at most `budget` bytes: a compressed text may be a thousand times larger than its chunk.
fn inflate(method: u8, value: &[u8], budget: usize) -> Result<Vec<u8>, String> {
    if method != 0 {
        return Err(format!("has the compression method {method}: only 0 exists"));
    }
    let mut bytes = Vec::new();
    let mut limited = ZlibDecoder::new(value).take(budget as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(|error| format!("cannot be decompressed ({error})"))?;
    if bytes.len() > budget { Err(too_long()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A PNG without pixels that holds one chunk.
    fn png_with(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        for (kind, data) in [(kind, data), (b"IEND", &[][..])] {
            let mut crc = Crc::new();
            crc.update(kind);
            crc.update(data);
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(kind);
            bytes.extend(data);
            bytes.extend(crc.sum().to_be_bytes());
        }
        bytes
    }

    fn problem(kind: &[u8; 4], data: &[u8]) -> String {
        read_png_text(&png_with(kind, data)).unwrap_err().to_string()
    }

    #[test]
    fn texts_come_back_in_their_order_and_the_pixels_are_unchanged() {
        let image = RgbImage::from_fn(5, 3, |x, y| [x as u8 * 40, y as u8 * 70, 9].into());
        let texts =
            [("parameters", "un café\nSteps: 20"), ("mm", "{\"seed\": 1}"), ("Titel", "星"), ("e", "")];
        let png = write_png_with_text(&image, &texts).unwrap();
        let found = read_png_text(&png).unwrap();
        let found: Vec<_> = found.iter().map(|(keyword, value)| (keyword.as_str(), value.as_str())).collect();
        assert_eq!(found, texts);
        assert_eq!(crate::decode(&png, [0; 3]).unwrap(), image);
        let kinds = [&b"tEXt"[..], b"iTXt"].map(|kind| png.windows(4).filter(|bytes| bytes == &kind).count());
        assert_eq!(kinds, [3, 1], "Latin-1 is tEXt");
    }

    #[test]
    fn compressed_texts_are_read() {
        let data = [b"key\0\0".to_vec(), zlib(b"caf\xe9")].concat();
        assert_eq!(read_png_text(&png_with(b"zTXt", &data)).unwrap()[0].1, "café");
        let data = [b"key\0\x01\0fr\0cl\xc3\xa9\0".to_vec(), zlib("星".as_bytes())].concat();
        assert_eq!(read_png_text(&png_with(b"iTXt", &data)).unwrap(), [("key".to_owned(), "星".to_owned())]);
    }

    #[test]
    fn texts_that_png_does_not_allow_are_refused() {
        let image = RgbImage::new(1, 1);
        let long = "k".repeat(80);
        for keyword in ["", " a", "a ", "a  b", "星", "a\nb", &long] {
            let error = write_png_with_text(&image, &[(keyword, "")]).unwrap_err().to_string();
            assert!(error.contains("1 to 79 printable characters"), "{error}");
        }
        let error = write_png_with_text(&image, &[("a", "b\0c")]).unwrap_err().to_string();
        assert!(error.contains("NUL"), "{error}");
        let error = write_png_with_text(&RgbImage::new(0, 1), &[]).unwrap_err().to_string();
        assert!(error.starts_with("cannot encode the PNG"), "{error}");
    }

    #[test]
    fn damaged_chunks_are_named() {
        assert!(read_png_text(b"GIF89a").unwrap_err().to_string().contains("it is not a PNG"));
        assert!(read_png_text(SIGNATURE).unwrap_err().to_string().contains("truncated"));
        let mut damaged = png_with(b"tEXt", b"key\0value");
        damaged[18] ^= 1;
        assert!(read_png_text(&damaged).unwrap_err().to_string().contains("wrong checksum"));
        assert!(problem(b"tEXt", b"no end").contains("has no NUL"));
        assert!(problem(b"tEXt", b"\0value").contains("keyword of 0 bytes"));
        assert!(problem(b"zTXt", b"key\0").contains("too short"));
        assert!(problem(b"zTXt", b"key\0\x07x").contains("compression method 7"));
        assert!(problem(b"zTXt", b"key\0\0nothing").contains("cannot be decompressed"));
        assert!(problem(b"iTXt", b"key\0\x02\0\0\0x").contains("compression flag 2"));
        assert!(problem(b"iTXt", b"key\0\0\0\0\0\xff").contains("not UTF-8"));
    }

    #[test]
    fn a_text_that_inflates_beyond_the_limit_is_refused() {
        let bomb = [b"key\0\0".to_vec(), zlib(&vec![b'a'; MAX_TEXT_BYTES + 1])].concat();
        assert!(bomb.len() < MAX_TEXT_BYTES / 100);
        assert!(problem(b"zTXt", &bomb).contains("more than 16777216 bytes"));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(keyword in "[!-~]([ ]?[!-~]){0,39}", value in "[^\\x00]{0,60}") {
            let png = write_png_with_text(&RgbImage::new(2, 2), &[(&keyword, &value)]).unwrap();
            prop_assert_eq!(read_png_text(&png).unwrap(), [(keyword, value)]);
        }

        #[test]
        fn damage_gives_texts_or_an_error(at in 0usize..200, bits in 1u8.., cut in 0usize..200) {
            let texts = [("parameters", "a red star"), ("title", "星")];
            let mut png = write_png_with_text(&RgbImage::new(2, 2), &texts).unwrap();
            let length = png.len();
            png[at % length] ^= bits;
            let _ = read_png_text(&png);
            png.truncate(cut % length);
            prop_assert!(read_png_text(&png).is_err());
        }
    }
}
