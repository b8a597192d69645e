//! The input of ViLT's blocks: the words of the question, then the patches of the image.

use super::ViltConfig;
use super::config::INIT_STD;
use mm_core::Precision;
use mm_core::nn::{Embedding, LayerNorm, PatchEmbedding, parameter};
use mm_text::TokenBatch;
use mm_vision::PaddedImages;
use std::collections::BTreeMap;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// Rows of the embedding of modalities.
const TEXT: i64 = 0;
const IMAGE: i64 = 1;

#[derive(Debug)]
pub(super) struct ViltEmbeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
    class_token: Tensor,
    patch_embeddings: PatchEmbedding,
    /// `[1, 1 + grid * grid, width]`: of the class token, then of the patches row by row.
    patch_positions: Tensor,
    modalities: Embedding,
    grid: i64,
    patch_size: i64,
}

impl ViltEmbeddings {
    pub fn new(path: &Path, config: &ViltConfig) -> Self {
        let (width, text) = (config.hidden_size, path / "text_embeddings");
        let table = |path: &Path, name: &str, rows| Embedding::new(&(path / name), rows, width, INIT_STD);
        let free = |name: &str, rows| {
            parameter(path, name, &[1, rows, width], Init::Randn { mean: 0.0, stdev: INIT_STD })
        };
        let projection = path / "patch_embeddings" / "projection";
        Self {
            word_embeddings: table(&text, "word_embeddings", config.vocab_size),
            position_embeddings: table(&text, "position_embeddings", config.max_position_embeddings),
            token_type_embeddings: table(&text, "token_type_embeddings", config.type_vocab_size),
            layer_norm: LayerNorm::new(&(&text / "LayerNorm"), width, config.layer_norm_eps),
            class_token: free("cls_token", 1),
            patch_embeddings: PatchEmbedding::new(&projection, config.patch_size, width, true, INIT_STD),
            patch_positions: free("position_embeddings", 1 + config.grid() * config.grid()),
            modalities: table(path, "token_type_embeddings", config.modality_type_vocab_size),
            grid: config.grid(),
            patch_size: config.patch_size,
        }
    }

    /// The embeddings `[B, L + 1 + P, width]`: L tokens of the question, the class token of the image and its
    /// patches row by row, of the image with the most of them P; and their mask of 1 for these and 0 for
    /// padding, `[B, L + 1 + P]`.
    pub fn forward(&self, images: &PaddedImages, questions: &TokenBatch) -> (Tensor, Tensor) {
        let modality = |row: i64| self.modalities.weight().get(row);
        let text = self.text(&questions.input_ids) + modality(TEXT);
        let (patches, mask) = self.patches(images); // [B, P, width], [B, P]
        let (batch, _, width) = patches.size3().expect("patches are [B, P, width]");
        let class =
            (&self.class_token + self.patch_positions.narrow(1, 0, 1)).expand([batch, 1, width], false);
        let image = Tensor::cat(&[class, patches], 1) + modality(IMAGE);
        let text_mask = questions.attention_mask.to_device(mask.device());
        let mask =
            Tensor::cat(&[text_mask, mask.new_ones([batch, 1], (Kind::Int64, mask.device())), mask], 1);
        (Tensor::cat(&[text, image], 1), mask)
    }

    /// The words `[B, L, width]` of `input_ids` `[B, L]`.
    fn text(&self, input_ids: &Tensor) -> Tensor {
        let positions = self.position_embeddings.first(input_ids.size()[1]);
        let words = self.word_embeddings.forward(input_ids);
        self.layer_norm.forward(&(words + (positions + self.token_type_embeddings.first(1))))
    }

    /// The patches of each image with their positions, without those of its padding, `[B, P, width]`, and
    /// their mask `[B, P]`.
    fn patches(&self, images: &PaddedImages) -> (Tensor, Tensor) {
        let all = self.patch_embeddings.forward(&images.pixel_values); // [B, rows * columns, width]
        let (batch, places, width) = all.size3().expect("patches are [B, N, width]");
        let columns = images.pixel_values.size()[3] / self.patch_size;
        let grid = |&(height, width): &(i64, i64)| (height / self.patch_size, width / self.patch_size);
        let grids: Vec<(i64, i64)> = images.sizes.iter().map(grid).collect();
        let most = grids.iter().map(|(rows, columns)| rows * columns).max().unwrap_or(0);
        let (mut index, mut mask) = (Vec::new(), Vec::new());
        for (image, &(own_rows, own_columns)) in (0..).zip(&grids) {
            let place = |patch: i64| image * places + patch / own_columns * columns + patch % own_columns;
            let own = own_rows * own_columns;
            index.extend((0..own).map(place));
            index.extend((own..most).map(|_| image * places));
            mask.extend((0..most).map(|patch| i64::from(patch < own)));
        }
        let device = all.device();
        let shape = [batch, most];
        let index = Tensor::from_slice(&index).to_device(device);
        let patches = all.reshape([-1, width]).index_select(0, &index).view([batch, most, width]);
        (patches + self.positions(&grids, most), Tensor::from_slice(&mask).view(shape).to_device(device))
    }

    /// The positions `[B, most, width]` of grids of (rows, columns) patches: the table, bilinearly
    /// interpolated so that its corners are the grid's.
    fn positions(&self, grids: &[(i64, i64)], most: i64) -> Tensor {
        let table = self.patch_positions.narrow(1, 1, self.grid * self.grid); // [1, grid * grid, width]
        let width = table.size()[2];
        let square = table.transpose(1, 2).reshape([1, width, self.grid, self.grid]);
        let mut resized: BTreeMap<(i64, i64), Tensor> = BTreeMap::new();
        let rows: Vec<Tensor> = grids
            .iter()
            .map(|&(rows, columns)| {
                let resize = || {
                    let places = square.upsample_bilinear2d([rows, columns], true, None, None);
                    let places = places.view([width, rows * columns]).transpose(0, 1);
                    places.constant_pad_nd([0, 0, 0, most - rows * columns])
                };
                resized.entry((rows, columns)).or_insert_with(resize).shallow_clone()
            })
            .collect();
        match rows.as_slice() {
            [] => table.new_zeros([0, most, width], (table.kind(), table.device())),
            rows => Tensor::stack(rows, 0),
        }
    }

    /// Prepares for inference in `precision`.
    pub fn pack(&mut self, precision: Precision) {
        for table in [
            &mut self.word_embeddings,
            &mut self.position_embeddings,
            &mut self.token_type_embeddings,
            &mut self.modalities,
        ] {
            table.pack(precision);
        }
        self.layer_norm.pack(precision);
        self.patch_embeddings.pack(precision);
        for table in [&mut self.class_token, &mut self.patch_positions] {
            *table = table.detach().to_kind(precision.kind());
        }
    }
}
