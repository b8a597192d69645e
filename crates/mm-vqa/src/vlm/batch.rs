//! The samples of a training step.

use super::conversation::Conversations;
use super::packing::{ChatRows, pack};
use super::run_config::VlmRunConfig;
use super::turns::{ChatTokens, TurnEncoder};
use super::{VlmImages, VlmPipeline, VlmProcessor};
use crate::Result;
use mm_core::upload;
use mm_data::{Fault, Map, Sample, SampleImage, SampleRng};
use mm_image::RgbImage;
use mm_image::image::Rgb;
use mm_text::ChatMessage;
use mm_text::decoder::TextDecoder;
use mm_vision::ImageTiles;
use rand::RngExt;
use std::sync::Arc;
use tch::{Device, Tensor};

/// A conversation about some images, ready to be batched.
pub struct VlmItem {
    pub(crate) tokens: ChatTokens,
    /// The tiles of the images in order, 8-bit.
    pub(crate) tiles: Vec<RgbImage>,
}

impl mm_data::Item for VlmItem {
    fn bytes(&self) -> usize {
        let tiles: usize = self.tiles.iter().map(mm_data::Item::bytes).sum();
        tiles + 5 * self.tokens.token_ids.len()
    }
}

/// Conversations on the model's device.
pub struct VlmBatch {
    /// The tiles of all images, in the order of their placeholders, `[T, 3, H, W]`; one blank tile where
    /// there is no image.
    pub pixel_values: Tensor,
    /// Whether there is an image.
    pub has_images: bool,
    pub(crate) rows: ChatRows,
}

/// What items and batches are made with.
#[derive(Clone)]
pub(crate) struct Batching {
    pub conversations: Conversations,
    pub encoder: TurnEncoder,
    /// The largest number of tokens of a conversation.
    pub max_tokens: usize,
    packing: bool,
    background: [u8; 3],
}

impl Batching {
    /// # Errors
    /// The model has no chat template.
    pub fn new(config: &VlmRunConfig, pipeline: &VlmPipeline) -> Result<Self> {
        let input = &config.input;
        let processor = pipeline.processor.clone().with_splitting(input.splitting());
        let positions = pipeline.model.decoder().sizes().max_length as usize;
        Ok(Self {
            conversations: Conversations { content: input.content, prompts: input.prompts.clone() },
            encoder: TurnEncoder::new(pipeline, processor)?,
            max_tokens: input.max_tokens.min(positions),
            packing: input.packing,
            background: config.data.background,
        })
    }

    /// Draws a conversation of a sample, decodes its images and encodes it.
    pub fn preprocess(&self) -> Map<VlmItem> {
        let batching = self.clone();
        Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
            let conversation = batching.conversations.of(sample, |_, count| rng.random_range(0..count))?;
            let images = batching.tiles(conversation.images(sample)?, batching.background)?;
            let tokens = batching.tokens(&conversation.messages, &images)?;
            Ok(VlmItem { tokens, tiles: images.into_iter().flat_map(|image| image.tiles).collect() })
        })
    }

    /// The tiles of each image.
    pub fn tiles(&self, images: &[SampleImage], background: [u8; 3]) -> mm_data::Result<Vec<ImageTiles>> {
        let tiles = |image: &SampleImage| {
            let image = image.decode(background)?;
            let bad = |error: crate::Error| mm_data::Error::bad(Fault::Image, error.to_string());
            self.encoder.processor.tiles(&image).map_err(bad)
        };
        images.iter().map(tiles).collect()
    }

    /// The tokens of a conversation. A longer one than `max_tokens` is a bad sample: cut, it would end inside
    /// an image or an answer.
    pub fn tokens(&self, messages: &[ChatMessage], images: &[ImageTiles]) -> mm_data::Result<ChatTokens> {
        let unreadable = |error: crate::Error| mm_data::Error::bad(Fault::Text, error.to_string());
        let tokens = self.encoder.encode(messages, images).map_err(unreadable)?;
        let (length, limit) = (tokens.token_ids.len(), self.max_tokens);
        if length > limit {
            let problem = format!("{length} tokens, more than the {limit} of input.max_tokens");
            return Err(mm_data::Error::bad(Fault::Other, problem));
        }
        Ok(tokens)
    }

    /// The batch of `items` on `device`.
    pub fn collate(&self, items: Vec<VlmItem>, device: Device) -> Result<VlmBatch> {
        let (mut texts, mut tiles) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for item in items {
            texts.push(item.tokens);
            tiles.push(item.tiles);
        }
        let rows = if self.packing {
            pack(&texts.iter().map(ChatTokens::inputs).collect::<Vec<_>>(), self.max_tokens)
        } else {
            (0..texts.len()).map(|text| vec![text]).collect()
        };
        let mut of_rows: Vec<RgbImage> =
            rows.iter().flatten().flat_map(|&text| std::mem::take(&mut tiles[text])).collect();
        let has_images = !of_rows.is_empty();
        if !has_images {
            of_rows.push(blank_tile(&self.encoder.processor));
        }
        let pixel_values = self.encoder.processor.normalize_batch(&of_rows)?;
        Ok(VlmBatch {
            pixel_values: upload(&pixel_values, device),
            has_images,
            rows: ChatRows::new(&texts, &rows, device),
        })
    }
}

/// A tile of the mean color, in the place of images that a model must not see.
pub(crate) fn blank_tile(processor: &VlmProcessor) -> RgbImage {
    let side = processor.images.side().unwrap_or(1) as u32; // it was checked with the processor
    let mean = match &processor.images {
        VlmImages::Tiles(images) => images.normalize().mean,
        VlmImages::Single { processor, .. } => processor.normalize().mean,
    };
    RgbImage::from_pixel(side, side, Rgb(mean.map(|share| (share * 255.0).round() as u8)))
}
