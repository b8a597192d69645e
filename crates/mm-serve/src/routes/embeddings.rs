//! `POST /v1/embeddings`: texts and images as unit vectors, in the form of OpenAI's API.

use super::check_text;
use crate::api_error::{ApiError, ApiResult};
use crate::app::App;
use crate::body::parse;
use crate::families::clip::ClipJob;
use crate::response::json;
use crate::upload::{ImageSource, Resize, Upload, check_count, decode};
use crate::worker::reply;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mm_text::Tokenizer;
use mm_vision::ImageProcessor;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Bytes of texts that are tokenized on their thread: more take as long as a hand-over to another one.
const INLINE: usize = 2048;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsRequest {
    model: String,
    input: Inputs,
    encoding_format: Option<EncodingFormat>,
    dimensions: Option<u64>,
    /// Of OpenAI's clients, which send it; without effect.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// The numbers as f32 in little-endian order.
    Base64,
}

#[derive(Debug)]
enum Input {
    Text(String),
    Image(ImageSource),
}

/// One input or a list of them.
#[derive(Debug)]
struct Inputs(Vec<Input>);

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct EmbeddingList<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

/// Embeds texts and images.
pub async fn embed(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (request, _memory) = parse::<EmbeddingsRequest>(&app, request).await?;
    let worker = app.clip(&request.model)?;
    let info = worker.info()?;
    if request.dimensions.is_some_and(|width| width != info.width as u64) {
        let message = format!("the embeddings of this model have {} dimensions: leave it out", info.width);
        return Err(ApiError::invalid("dimensions", message));
    }
    let count = request.input.0.len();
    let (mut texts, mut uploads, mut is_text) = (Vec::new(), Vec::new(), Vec::with_capacity(count));
    for (index, input) in request.input.0.into_iter().enumerate() {
        let param = if count == 1 { "input".to_owned() } else { format!("input[{index}]") };
        is_text.push(matches!(input, Input::Text(_)));
        match input {
            Input::Text(text) => {
                check_text(&text, &param, &app.limits)?;
                texts.push(text);
            }
            Input::Image(source) => uploads.push(Upload { param, source }),
        }
    }
    if count == 0 || texts.len() > app.limits.texts {
        let message = format!("{} texts: a request has at most {}", texts.len(), app.limits.texts);
        let message =
            if count == 0 { "the list is empty: send a text or an image".to_owned() } else { message };
        return Err(ApiError::invalid("input", message));
    }
    if !uploads.is_empty() {
        check_count(uploads.len(), "input", &app.limits)?;
    }
    let texts = tokenize(&info.tokenizer, texts, "input").await?;
    let images = decode(&app, uploads, Some(resize(&info.processor))).await?;
    let tokens = texts.iter().map(Vec::len).sum();
    let (reply, rows) = reply();
    worker.submit(ClipJob::Embed { texts, images, reply })?;
    let rows = rows.wait().await?;

    let (of_images, of_texts): (Vec<usize>, Vec<usize>) = (0..count).partition(|&index| !is_text[index]);
    let places = of_texts.into_iter().chain(of_images);
    let format = request.encoding_format.unwrap_or_default();
    let mut data: Vec<Embedding> =
        places.zip(rows).map(|(index, row)| embedding(index, row, format)).collect();
    data.sort_unstable_by_key(|embedding| embedding.index);
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(json(&EmbeddingList { object: "list", data, model: &request.model, usage }))
}

fn embedding(index: usize, row: Vec<f32>, format: EncodingFormat) -> Embedding {
    let embedding = match format {
        EncodingFormat::Float => Vector::Float(row),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    };
    Embedding { object: "embedding", index, embedding }
}

/// The resizing of a CLIP's images.
pub fn resize(processor: &ImageProcessor) -> Resize {
    let processor = processor.clone();
    Arc::new(move |image| processor.resize(image).map_err(|error| error.to_string()))
}

/// The tokens of texts of the field `param`.
///
/// # Errors
/// 422: the tokenizer does not cover one.
pub async fn tokenize(
    tokenizer: &Arc<Tokenizer>,
    texts: Vec<String>,
    param: &str,
) -> ApiResult<Vec<Vec<u32>>> {
    let encoded = if texts.iter().map(String::len).sum::<usize>() <= INLINE {
        texts.iter().map(|text| tokenizer.encode(text)).collect()
    } else {
        let tokenizer = Arc::clone(tokenizer);
        let encode = move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            tokenizer.encode_all(&texts)
        };
        tokio::task::spawn_blocking(encode).await.map_err(|error| ApiError::internal(&error))?
    };
    encoded.map_err(|error: mm_text::Error| ApiError::unprocessable(param, error.to_string()))
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a text or {\"image\": DATA URL}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Input, E> {
        Ok(Input::Text(text))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Input, E> {
        Ok(Input::Image(ImageSource::File(bytes.into())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Input, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Image {
            image: ImageSource,
        }
        let Image { image } = Image::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Input::Image(image))
    }
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a text, {\"image\": DATA URL}, or a list of these")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Inputs, E> {
        InputVisitor.visit_str(text).map(|input| Inputs(vec![input]))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Inputs, E> {
        InputVisitor.visit_string(text).map(|input| Inputs(vec![input]))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Inputs, E> {
        InputVisitor.visit_byte_buf(bytes).map(|input| Inputs(vec![input]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Inputs, A::Error> {
        InputVisitor.visit_map(map).map(|input| Inputs(vec![input]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
        let mut inputs = Vec::new();
        while let Some(input) = list.next_element()? {
            inputs.push(input);
        }
        Ok(Inputs(inputs))
    }
}
