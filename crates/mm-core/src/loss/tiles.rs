//! Contrastive losses computed one tile of logits at a time (Cheng et al. 2025, "Breaking the memory
//! barrier of contrastive loss via tile-based strategy", section 3).
//!
//! A loss over all pairs is a sum over chunks of texts: a single process has one chunk; in a ring of
//! processes the texts of every process are a chunk, and travel with their partial sums. InfoNCE takes two
//! passes over all chunks: the log-sum-exps of rows and columns, then the gradients, which need the complete
//! sums. SigLIP takes one. All is computed in f32, without a graph and without synchronizing a GPU.
//!
//! InfoNCE of B pairs, with b images in this process and chunks of texts:
//!
//! 1. [`ImageSums::new`]; for each chunk [`LogitTiles::add_log_sum_exps`]. The sums of texts start as
//!    [`no_log_sum_exps`] and travel with the texts.
//! 2. The part of the loss of this process is [`ImageSums::info_nce`] with the sums of its own texts after
//!    all chunks.
//! 3. For each chunk [`LogitTiles::add_info_nce_gradients`]. The gradients of texts start as zeros and travel
//!    with the texts.
//! 4. [`with_gradients`] derives the gradient of `logit_scale` from those of the images.

use tch::{Device, Kind, Tensor};

/// The logits of this process's images with one chunk of texts, of this or another process.
#[derive(Clone, Copy, Debug)]
pub struct LogitTiles<'a> {
    /// Unit rows `[b, D]`, f32.
    pub image_embeds: &'a Tensor,
    /// Unit rows `[c, D]`, f32.
    pub text_embeds: &'a Tensor,
    /// The log of the inverse temperature, one number.
    pub logit_scale: &'a Tensor,
    /// Rows and columns of a tile, at least 1.
    pub tile: i64,
    /// Whether image i and text i are a pair, with b = c. Otherwise no image has its text in this chunk.
    pub is_paired: bool,
}

/// The value of a loss, and the gradient of its bias.
type ValueAndBias = (Tensor, Option<Tensor>);

/// A loss of embeddings `[b, D]` and `[c, D]`, the log of the inverse temperature and an optional bias, with
/// gradients computed together with its value. `compute` takes the embeddings in f32 and returns the value
/// and the gradient of the bias; it adds the gradients of the embeddings to its last argument, which is
/// `None` where no input requires one. The gradient of the temperature is derived from them.
///
/// # Errors
/// `compute` fails.
///
/// # Panics
/// The value of `compute` is not a scalar.
pub fn with_gradients<E>(
    image_embeds: &Tensor,
    text_embeds: &Tensor,
    logit_scale: &Tensor,
    logit_bias: Option<&Tensor>,
    compute: impl FnOnce(&Tensor, &Tensor, Option<&mut EmbedGradients>) -> Result<ValueAndBias, E>,
) -> Result<Tensor, E> {
    let (images, texts) = (image_embeds.to_kind(Kind::Float), text_embeds.to_kind(Kind::Float));
    let is_needed = |x: &Tensor| mm_sys::grad_mode() && x.requires_grad();
    let [of_images, of_texts, of_scale] = [&images, &texts, logit_scale].map(is_needed);
    let of_bias = logit_bias.is_some_and(is_needed);
    let mut gradients = (of_images || of_texts || of_scale || of_bias).then(|| EmbedGradients {
        images: (of_images || of_scale).then(|| images.detach().zeros_like()),
        texts: of_texts.then(|| texts.detach().zeros_like()),
    });
    let (value, bias_gradient) = tch::no_grad(|| compute(&images, &texts, gradients.as_mut()))?;
    let Some(gradients) = gradients else { return Ok(value) };
    let scale_gradient =
        gradients.images.as_ref().filter(|_| of_scale).map(|gradient| of_logit_scale(&images, gradient));
    let of_embeds = [(&images, gradients.images), (&texts, gradients.texts)];
    let of_numbers = [(Some(logit_scale), scale_gradient), (logit_bias, bias_gradient)];
    let of_numbers =
        of_numbers.into_iter().filter_map(|(x, gradient)| Some((x?, gradient?.reshape(x?.size()))));
    let known =
        of_embeds.into_iter().filter_map(|(x, gradient)| Some((x, gradient?))).chain(of_numbers).collect();
    Ok(mm_sys::scalar_with_gradients(&value, known).expect("each gradient has the shape of its input"))
}

/// The gradient of the log of the inverse temperature, a scalar, from the gradients of the images' embeddings
/// over all chunks: the scale is a common factor of the embeddings.
fn of_logit_scale(embeds: &Tensor, gradients: &Tensor) -> Tensor {
    without_graph_or_autocast(embeds, || {
        let parts = embeds.split(ROWS_AT_ONCE, 0).into_iter().zip(gradients.split(ROWS_AT_ONCE, 0));
        let sums =
            parts.map(|(embeds, gradients)| (embeds * gradients).sum(Kind::Float).to_kind(Kind::Double));
        sums.sum::<Tensor>().to_kind(Kind::Float)
    })
}

/// The sums of InfoNCE over the logits of each image.
#[derive(Debug)]
pub struct ImageSums {
    /// The log-sum-exp of the logits so far, `[b]`.
    pub log_sum_exp: Tensor,
    /// The logit with its own text, `[b]`.
    pub paired: Tensor,
}

/// The gradients of embeddings, summed up chunk by chunk.
#[derive(Debug)]
pub struct EmbedGradients {
    /// `[b, D]`, if required.
    pub images: Option<Tensor>,
    /// `[c, D]`, if required.
    pub texts: Option<Tensor>,
}

/// The sums of SigLIP over all pairs, in f64 for the sum of thousands of tiles.
#[derive(Debug)]
pub struct PairSums {
    /// The loss, times the weight of a pair.
    pub loss: Tensor,
    /// The gradient of the bias.
    pub logit_bias: Tensor,
}

/// Rows of products computed at a time.
const ROWS_AT_ONCE: i64 = 1024;

impl ImageSums {
    /// The sums of no logits, for images `[b, D]`.
    pub fn new(image_embeds: &Tensor) -> Self {
        Self { log_sum_exp: no_log_sum_exps(image_embeds), paired: rows_of(image_embeds, 0.0) }
    }

    /// `weight` times the sum over pairs of both cross-entropies, one number, once the sums and those of the
    /// images' own texts `[b]` are over all chunks.
    pub fn info_nce(&self, texts: &Tensor, weight: f64) -> Tensor {
        let image_to_text = &self.log_sum_exp - &self.paired;
        let text_to_image = texts - &self.paired;
        (image_to_text + text_to_image).sum(Kind::Float) * weight
    }
}

/// The log-sum-exp `[c]` of no logits, for embeddings `[c, D]`.
pub fn no_log_sum_exps(embeds: &Tensor) -> Tensor {
    rows_of(embeds, f64::NEG_INFINITY)
}

impl PairSums {
    /// The sums of no pairs, on the device of `embeds`.
    pub fn new(embeds: &Tensor) -> Self {
        let zero = || Tensor::zeros([], (Kind::Double, embeds.device()));
        Self { loss: zero(), logit_bias: zero() }
    }
}

/// Runs `body` without a graph and without autocast, which would compute the logits in bf16.
fn without_graph_or_autocast<T>(embeds: &Tensor, body: impl FnOnce() -> T) -> T {
    tch::no_grad(|| mm_sys::without_autocast(embeds.device(), body))
}

fn f32_on(embeds: &Tensor) -> (Kind, Device) {
    (Kind::Float, embeds.device())
}

fn rows_of(embeds: &Tensor, value: f64) -> Tensor {
    Tensor::full([embeds.size()[0]], value, f32_on(embeds))
}

/// A tile of logits `[r, c]` and scratch memory of the same size.
struct Tile {
    logits: Tensor,
    scratch: Tensor,
    /// The first row and the number of rows.
    rows: (i64, i64),
    /// The first column and the number of columns.
    columns: (i64, i64),
    /// Whether its diagonal holds the pairs.
    is_diagonal: bool,
}

impl LogitTiles<'_> {
    /// InfoNCE's first pass: adds this chunk to the sums of the images, and these images to the log-sum-exps
    /// of the texts `[c]`.
    pub fn add_log_sum_exps(&self, images: &mut ImageSums, texts: &mut Tensor) {
        self.visit(1.0, None, |tile| {
            let add = |sums: &Tensor, (start, length), over: i64| {
                let sums = sums.narrow(0, start, length);
                let _ = sums.logaddexp_out(&sums, &tile.logits.logsumexp([over].as_slice(), false));
            };
            add(&images.log_sum_exp, tile.rows, 1);
            add(texts, tile.columns, 0);
            if tile.is_diagonal {
                images.paired.narrow(0, tile.rows.0, tile.rows.1).copy_(&tile.diagonal());
            }
        });
    }

    /// InfoNCE's second pass, with log-sum-exps over all chunks, `[b]` of the images and `[c]` of these
    /// texts: adds the gradients of `weight` times the sum over pairs of both cross-entropies. The weight is
    /// 1 / 2B for their mean over B pairs.
    pub fn add_info_nce_gradients(
        &self,
        images: &Tensor,
        texts: &Tensor,
        weight: f64,
        gradients: &mut EmbedGradients,
    ) {
        let (images, texts) = (images.unsqueeze(1), texts.unsqueeze(0));
        self.visit(weight, Some(gradients), |tile| {
            let image_sums = images.narrow(0, tile.rows.0, tile.rows.1);
            let text_sums = texts.narrow(1, tile.columns.0, tile.columns.1);
            let _ = tile.logits.sub_out(&tile.scratch, &image_sums);
            let _ = tile.scratch.exp_();
            tile.logits -= text_sums;
            let _ = tile.logits.exp_();
            tile.logits += &tile.scratch;
            if tile.is_diagonal {
                let mut pairs = tile.diagonal();
                pairs -= 2.0;
            }
        });
    }

    /// SigLIP's only pass, with `logit_bias`, one number: adds the loss of every pair times `weight`, and its
    /// gradients. The weight is 1 / B for B texts over all.
    pub fn add_siglip(
        &self,
        logit_bias: &Tensor,
        weight: f64,
        sums: &mut PairSums,
        gradients: Option<&mut EmbedGradients>,
    ) {
        let has_gradients = gradients.is_some();
        self.visit(weight, gradients.as_deref(), |tile| {
            let negate_pairs = |tile: &Tile| {
                if tile.is_diagonal {
                    let _ = tile.diagonal().neg_();
                }
            };
            tile.logits += logit_bias;
            negate_pairs(tile);
            let _ = tile.logits.softplus_out(&tile.scratch);
            sums.loss += tile.scratch.sum(Kind::Float) * weight;
            if has_gradients {
                let _ = tile.logits.sigmoid_();
                negate_pairs(tile);
                sums.logit_bias += tile.logits.sum(Kind::Float) * weight;
            }
        });
    }

    /// Computes tile after tile of logits for `visit`. With `gradients`, `visit` turns the logits into the
    /// derivatives for them, which are carried on to the embeddings, times `weight`.
    fn visit(&self, weight: f64, gradients: Option<&EmbedGradients>, mut visit: impl FnMut(&mut Tile)) {
        let (count, text_count) = (self.image_embeds.size()[0], self.text_embeds.size()[0]);
        let (of_images, of_texts) =
            gradients.map_or((None, None), |all| (all.images.as_ref(), all.texts.as_ref()));
        let parts = |count: i64| {
            (0..count).step_by(self.tile as usize).map(move |start| (start, self.tile.min(count - start)))
        };
        without_graph_or_autocast(self.image_embeds, || {
            let largest = self.tile.min(count) * self.tile.min(text_count);
            let memory = [(); 2].map(|()| Tensor::empty([largest], f32_on(self.image_embeds)));
            let scale = self.logit_scale.exp();
            for rows in parts(count) {
                let images = self.image_embeds.narrow(0, rows.0, rows.1) * &scale; // [r, D]
                let weighted = &images * weight;
                let mut image_gradient = of_images.map(|_| images.zeros_like()); // [r, D]
                for columns in parts(text_count) {
                    let texts = self.text_embeds.narrow(0, columns.0, columns.1); // [c, D]
                    let shape = [rows.1, columns.1];
                    let [logits, scratch] =
                        memory.each_ref().map(|m| m.narrow(0, 0, shape[0] * shape[1]).view(shape));
                    let _ = images.mm_out(&logits, &texts.tr());
                    let is_diagonal = self.is_paired && rows == columns;
                    let mut tile = Tile { logits, scratch, rows, columns, is_diagonal };
                    visit(&mut tile);
                    if let Some(gradient) = &mut image_gradient {
                        let _ = gradient.addmm_(&tile.logits, &texts);
                    }
                    if let Some(all) = of_texts {
                        let _ = all.narrow(0, columns.0, columns.1).addmm_(&tile.logits.tr(), &weighted);
                    }
                }
                if let (Some(all), Some(gradient)) = (of_images, image_gradient) {
                    let mut own = all.narrow(0, rows.0, rows.1);
                    own += gradient * (&scale * weight);
                }
            }
        });
    }
}

impl Tile {
    fn diagonal(&self) -> Tensor {
        self.logits.diagonal(0, 0, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::contrastive::tests::{terms, unit_rows};
    use super::super::{info_nce_tiled, siglip_tiled};
    use super::*;
    use mm_testing::assert_close;

    const PROCESSES: usize = 3;

    /// The chunks of `embeds`, one a process.
    fn chunks(embeds: &Tensor) -> Vec<Tensor> {
        embeds.chunk(PROCESSES as i64, 0)
    }

    fn zeros(of: &[Tensor]) -> Vec<Tensor> {
        of.iter().map(Tensor::zeros_like).collect()
    }

    /// Calls `meet` for every process's images and every process's texts, by their numbers.
    fn ring(
        images: &[Tensor],
        texts: &[Tensor],
        logit_scale: &Tensor,
        mut meet: impl FnMut(usize, usize, LogitTiles),
    ) {
        for (i, image_embeds) in images.iter().enumerate() {
            for (t, text_embeds) in texts.iter().enumerate() {
                meet(i, t, LogitTiles { image_embeds, text_embeds, logit_scale, tile: 2, is_paired: i == t });
            }
        }
    }

    /// Compares what a ring came to with the loss of one process.
    fn check(one: Tensor, leaves: &[Tensor], ring: Tensor, gradients: &[Tensor]) {
        one.backward();
        let expected = std::iter::once(one.detach()).chain(leaves.iter().map(Tensor::grad));
        let found = std::iter::once(&ring).chain(gradients);
        for (index, ((expected, found), terms)) in expected.zip(found).zip(terms(leaves)).enumerate() {
            assert_close(&format!("output {index}"), found, &expected, &terms);
        }
    }

    fn leaves() -> [Tensor; 4] {
        let inputs = [unit_rows(1, 7, 8), unit_rows(2, 7, 8), Tensor::from(2.0f32), Tensor::from(-3.0f32)];
        inputs.map(|x| x.set_requires_grad(true))
    }

    #[test]
    fn the_parts_of_a_ring_add_up_to_info_nce_of_one_process() {
        let leaves = leaves();
        let [images, texts, scale, _] = leaves.each_ref().map(Tensor::detach);
        let (images, texts, weight) = (chunks(&images), chunks(&texts), 0.5 / 7.0);
        let mut image_sums: Vec<_> = images.iter().map(ImageSums::new).collect();
        let mut text_sums: Vec<_> = texts.iter().map(no_log_sum_exps).collect();
        ring(&images, &texts, &scale, |i, t, tiles| {
            tiles.add_log_sum_exps(&mut image_sums[i], &mut text_sums[t])
        });
        let loss = image_sums.iter().zip(&text_sums).map(|(own, texts)| own.info_nce(texts, weight)).sum();
        let (of_images, of_texts) = (zeros(&images), zeros(&texts));
        ring(&images, &texts, &scale, |i, t, tiles| {
            let [images, texts] = [&of_images[i], &of_texts[t]].map(|x| Some(x.shallow_clone()));
            let mut gradients = EmbedGradients { images, texts };
            tiles.add_info_nce_gradients(&image_sums[i].log_sum_exp, &text_sums[t], weight, &mut gradients);
        });
        for (embeds, gradients) in [(&images, &of_images), (&texts, &of_texts)] {
            let parts = embeds.iter().zip(gradients).map(|(x, gradient)| of_logit_scale(x, gradient));
            let gradients = [Tensor::cat(&of_images, 0), Tensor::cat(&of_texts, 0), parts.sum()];
            let again = leaves.each_ref().map(|x| x.detach().set_requires_grad(true));
            check(
                info_nce_tiled(&again[0], &again[1], &again[2], 7),
                &again[..3],
                Tensor::shallow_clone(&loss),
                &gradients,
            );
        }
    }

    #[test]
    fn the_parts_of_a_ring_add_up_to_siglip_of_one_process() {
        let leaves = leaves();
        let [images, texts, scale, bias] = leaves.each_ref().map(Tensor::detach);
        let (images, texts) = (chunks(&images), chunks(&texts));
        let (of_images, of_texts) = (zeros(&images), zeros(&texts));
        let mut sums = PairSums::new(&bias);
        ring(&images, &texts, &scale, |i, t, tiles| {
            let [images, texts] = [&of_images[i], &of_texts[t]].map(|x| Some(x.shallow_clone()));
            tiles.add_siglip(&bias, 1.0 / 7.0, &mut sums, Some(&mut EmbedGradients { images, texts }));
        });
        let parts = images.iter().zip(&of_images).map(|(x, gradient)| of_logit_scale(x, gradient));
        let gradients = [Tensor::cat(&of_images, 0), Tensor::cat(&of_texts, 0), parts.sum(), sums.logit_bias];
        let one = siglip_tiled(&leaves[0], &leaves[1], &leaves[2], &leaves[3], 7);
        check(one, &leaves, sums.loss, &gradients);
    }
}
