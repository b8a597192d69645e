//! Images of requests: files of a form, or data URLs.

use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::limits::Limits;
use crate::memory_budget::{MemoryBudget, Reserved};
use axum::body::Bytes;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mm_image::{Header, RgbImage};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;
use tokio::task::JoinSet;

/// An encoded image.
#[derive(Clone, Debug)]
pub enum ImageSource {
    /// `data:image/png;base64,...`
    DataUrl(String),
    /// A file of a form.
    File(Bytes),
}

/// An encoded image and the field that it is in.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The field, as `images[2]`.
    pub param: String,
    /// The image.
    pub source: ImageSource,
}

/// A decoded image, with its share of the memory of all requests.
#[derive(Debug)]
pub struct Decoded {
    /// The pixels.
    pub image: RgbImage,
    /// The share.
    pub memory: Reserved,
}

/// Resizes an image to what a model reads, so that no more is kept.
pub type Resize = Arc<dyn Fn(&RgbImage) -> Result<RgbImage, String> + Send + Sync>;

impl<'de> Deserialize<'de> for ImageSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl Visitor<'_> for SourceVisitor {
    type Value = ImageSource;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an image: a data URL (data:image/png;base64,...) or a file of a multipart form")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ImageSource, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<ImageSource, E> {
        Ok(ImageSource::DataUrl(text))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<ImageSource, E> {
        Ok(ImageSource::File(bytes.into()))
    }
}

/// The images of a request that has either `image` or `images`.
///
/// # Errors
/// 400: it has both or none, or more than the limit.
pub fn one_or_many(
    image: Option<ImageSource>,
    images: Option<Vec<ImageSource>>,
    limits: &Limits,
) -> ApiResult<Vec<Upload>> {
    match (image, images) {
        (Some(source), None) => Ok(vec![Upload { param: "image".to_owned(), source }]),
        (None, Some(images)) => many(images, "images", limits),
        _ => Err(ApiError::invalid("image", "give either `image` or `images`")),
    }
}

/// The images of the list `param`.
///
/// # Errors
/// 400: there is none, or more than the limit.
pub fn many(images: Vec<ImageSource>, param: &str, limits: &Limits) -> ApiResult<Vec<Upload>> {
    check_count(images.len(), param, limits)?;
    let upload = |(index, source)| Upload { param: format!("{param}[{index}]"), source };
    Ok(images.into_iter().enumerate().map(upload).collect())
}

/// Checks the number of images of a request.
///
/// # Errors
/// 400: there is none, or more than the limit.
pub fn check_count(count: usize, param: &str, limits: &Limits) -> ApiResult<()> {
    if (1..=limits.images).contains(&count) {
        return Ok(());
    }
    let message = format!("{count} images: a request has 1 to {}", limits.images);
    Err(ApiError::invalid(param, message))
}

/// Decodes images on threads for blocking work, transparent parts on white, and resizes them by `resize`.
///
/// # Errors
/// 400 for a URL, 422 for an image that cannot be decoded, 429 where the memory is used up.
pub async fn decode(app: &App, uploads: Vec<Upload>, resize: Option<Resize>) -> ApiResult<Vec<Decoded>> {
    let mut tasks = JoinSet::new(); // aborts what has not begun where the request is dropped
    for (index, upload) in uploads.into_iter().enumerate() {
        let (memory, resize) = (app.memory.clone(), resize.clone());
        let most = app.limits.image_megapixels * 1_000_000;
        tasks.spawn_blocking(move || (index, decode_one(&upload, most, &memory, resize.as_ref())));
    }
    let mut decoded = Vec::with_capacity(tasks.len());
    while let Some(done) = tasks.join_next().await {
        let (index, image) = done.map_err(|error| ApiError::internal(&error))?;
        decoded.push((index, image?));
    }
    decoded.sort_unstable_by_key(|(index, _)| *index);
    Ok(decoded.into_iter().map(|(_, image)| image).collect())
}

/// Decodes one image.
///
/// # Errors
/// As [`decode`].
pub async fn decode_single(app: &App, upload: Upload, resize: Option<Resize>) -> ApiResult<Decoded> {
    let mut decoded = decode(app, vec![upload], resize).await?;
    decoded.pop().ok_or_else(|| ApiError::internal(&"an image was lost"))
}

fn decode_one(
    upload: &Upload,
    most_pixels: u64,
    budget: &MemoryBudget,
    resize: Option<&Resize>,
) -> ApiResult<Decoded> {
    let wrong = |problem: &dyn fmt::Display| ApiError::unprocessable(&upload.param, problem.to_string());
    let owned;
    let bytes: &[u8] = match &upload.source {
        ImageSource::File(bytes) => bytes,
        ImageSource::DataUrl(url) => {
            owned = decode_data_url(url).map_err(|problem| ApiError::invalid(&upload.param, problem))?;
            &owned
        }
    };
    let header = Header::read(Cursor::new(bytes)).map_err(|error| wrong(&error))?;
    let pixels = u64::from(header.width) * u64::from(header.height);
    if pixels > most_pixels {
        let (width, height) = (header.width, header.height);
        let message =
            format!("the image has {width} x {height} pixels, more than {most_pixels}: scale it down");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_param(&upload.param));
    }
    let mut memory = budget.reserve(3 * pixels as usize)?;
    let image = mm_image::decode(bytes, [255; 3]).map_err(|error| wrong(&error))?;
    let image = match resize {
        Some(resize) => resize(&image).map_err(|problem| wrong(&problem))?,
        None => image,
    };
    memory.shrink(image.as_raw().len());
    Ok(Decoded { image, memory })
}

/// The bytes of a data URL of an image.
fn decode_data_url(url: &str) -> Result<Vec<u8>, &'static str> {
    let url = url.trim();
    let begins_with =
        |prefix: &str| url.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if begins_with("http://") || begins_with("https://") {
        return Err("the server fetches no images: send a data URL (data:image/png;base64,...) or a file");
    }
    if !begins_with("data:image/") {
        return Err("it is not a data URL of an image (data:image/png;base64,...)");
    }
    let (head, data) = url.split_once(',').ok_or("the data URL has no comma")?;
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err("the data URL is not in base64: write data:image/png;base64,...");
    }
    STANDARD.decode(data).map_err(|_| "the base64 of the data URL is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_are_decoded_and_other_urls_refused_in_words() {
        assert_eq!(decode_data_url("data:image/png;base64,aGk=").unwrap(), b"hi");
        assert_eq!(decode_data_url(" DATA:image/png;name=a;Base64,aGk=\n").unwrap(), b"hi");
        for (url, problem) in [
            ("https://example.org/cat.png", "fetches no images"),
            ("HTTP://example.org/cat.png", "fetches no images"),
            ("file:///etc/passwd", "not a data URL"),
            ("data:text/plain;base64,aGk=", "not a data URL"),
            ("data:image/png;base64", "no comma"),
            ("data:image/png,hi", "not in base64"),
            ("data:image/png;base64,a\u{e9}", "malformed"),
            ("", "not a data URL"),
        ] {
            assert!(decode_data_url(url).unwrap_err().contains(problem), "{url}");
        }
    }
}
