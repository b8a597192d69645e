//! InfoNCE and the pairwise sigmoid loss, tile by tile.

use super::tiles::{EmbedGradients, ImageSums, LogitTiles, PairSums, no_log_sum_exps, with_gradients};
use std::convert::Infallible;
use tch::{Kind, Tensor};

/// Rows and columns of a tile: 4 MB of logits. Smaller tiles fit closer caches, but synchronization of
/// threads then dominates.
pub const DEFAULT_TILE: i64 = 1024;

/// [`info_nce`](super::info_nce) in memory that grows with B: `tile` rows and columns of the `[B, B]` logits
/// are computed at a time, and again for the gradients (Cheng et al. 2025, "Breaking the memory barrier of
/// contrastive loss via tile-based strategy").
///
/// The gradients are computed together with the value, if an input requires them; the backward pass is then
/// cheap and can run once.
///
/// # Panics
/// The shapes do not fit each other, or `tile` is less than 1.
pub fn info_nce_tiled(
    image_embeds: &Tensor,
    text_embeds: &Tensor,
    logit_scale: &Tensor,
    tile: i64,
) -> Tensor {
    let weight = 0.5 / image_embeds.size()[0] as f64;
    one_chunk(image_embeds, text_embeds, logit_scale, None, tile, |tiles, gradients| {
        let (mut images, mut texts) =
            (ImageSums::new(tiles.image_embeds), no_log_sum_exps(tiles.text_embeds));
        tiles.add_log_sum_exps(&mut images, &mut texts);
        if let Some(gradients) = gradients {
            tiles.add_info_nce_gradients(&images.log_sum_exp, &texts, weight, gradients);
        }
        (images.info_nce(&texts, weight), None)
    })
}

/// [`siglip`](super::siglip) in memory that grows with B, as [`info_nce_tiled`]. Each logit is computed once.
///
/// # Panics
/// The shapes do not fit each other, or `tile` is less than 1.
pub fn siglip_tiled(
    image_embeds: &Tensor,
    text_embeds: &Tensor,
    logit_scale: &Tensor,
    logit_bias: &Tensor,
    tile: i64,
) -> Tensor {
    let weight = 1.0 / image_embeds.size()[0] as f64;
    one_chunk(image_embeds, text_embeds, logit_scale, Some(logit_bias), tile, |tiles, gradients| {
        let mut sums = PairSums::new(tiles.image_embeds);
        tiles.add_siglip(logit_bias, weight, &mut sums, gradients);
        (sums.loss.to_kind(Kind::Float), Some(sums.logit_bias))
    })
}

/// [`with_gradients`] for all pairs in one chunk.
fn one_chunk(
    image_embeds: &Tensor,
    text_embeds: &Tensor,
    logit_scale: &Tensor,
    logit_bias: Option<&Tensor>,
    tile: i64,
    compute: impl FnOnce(LogitTiles, Option<&mut EmbedGradients>) -> (Tensor, Option<Tensor>),
) -> Tensor {
    let loss =
        with_gradients(image_embeds, text_embeds, logit_scale, logit_bias, |images, texts, gradients| {
            let tiles =
                LogitTiles { image_embeds: images, text_embeds: texts, logit_scale, tile, is_paired: true };
            Ok::<_, Infallible>(compute(tiles, gradients))
        });
    match loss {
        Ok(loss) => loss,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::super::contrastive::tests::{check_gradient, terms, unit_rows};
    use super::super::{MAX_LOGIT_SCALE, info_nce, siglip};
    use super::*;
    use mm_testing::assert_close;
    use tch::Device;

    type Inputs = [Tensor; 4];

    fn plain(loss: &str, x: &Inputs) -> Tensor {
        match loss {
            "InfoNCE" => info_nce(&x[0], &x[1], &x[2]),
            _ => siglip(&x[0], &x[1], &x[2], &x[3]),
        }
    }

    fn tiled(loss: &str, x: &Inputs, tile: i64) -> Tensor {
        match loss {
            "InfoNCE" => info_nce_tiled(&x[0], &x[1], &x[2], tile),
            _ => siglip_tiled(&x[0], &x[1], &x[2], &x[3], tile),
        }
    }

    /// The value of `loss` and its gradients for the `inputs` selected by `needed`.
    fn outputs(loss: impl Fn(&Inputs) -> Tensor, inputs: &Inputs, needed: [bool; 4]) -> Vec<Tensor> {
        let leaves = [0, 1, 2, 3].map(|i| inputs[i].detach().copy().set_requires_grad(needed[i]));
        let value = loss(&leaves);
        value.backward();
        let gradients = leaves.iter().map(Tensor::grad).filter(Tensor::defined);
        std::iter::once(value.detach()).chain(gradients).collect()
    }

    /// Checks both losses against the plain ones.
    fn check(inputs: &Inputs, needed: [bool; 4]) {
        for (loss, count) in [("InfoNCE", 3), ("SigLIP", 4)] {
            let expected = outputs(|x| plain(loss, x), inputs, needed);
            let mut terms = terms(&inputs[..count]).into_iter();
            let of_value = terms.next();
            let of_gradients = terms.zip(needed).filter_map(|(terms, needed)| needed.then_some(terms));
            let terms: Vec<Tensor> = of_value.into_iter().chain(of_gradients).collect();
            for tile in [1, 4, 7, 20, 64] {
                let found = outputs(|x| tiled(loss, x, tile), inputs, needed);
                assert_eq!((found.len(), expected.len()), (terms.len(), terms.len()));
                for (index, ((found, expected), terms)) in found.iter().zip(&expected).zip(&terms).enumerate()
                {
                    assert_eq!(found.kind(), expected.kind());
                    assert_close(&format!("{loss}, tile {tile}, output {index}"), found, expected, terms);
                }
            }
        }
    }

    fn numbers(scale: f64, bias: f64) -> [Tensor; 2] {
        [scale, bias].map(|x| Tensor::from_slice(&[x as f32])) // SigLIP's checkpoints have them as [1]
    }

    #[test]
    fn tiled_losses_equal_the_plain_ones_whatever_the_tile() {
        let [scale, bias] = numbers(1.5, -2.0);
        let inputs = [unit_rows(1, 20, 8), unit_rows(2, 20, 8), scale, bias];
        check(&inputs, [true; 4]);
        let [scale, bias] = [Tensor::from(2.0f32), Tensor::from(-1.0f32)];
        check(&[unit_rows(1, 1, 8), unit_rows(2, 1, 8), scale, bias], [true, true, true, false]);
    }

    #[test]
    fn only_inputs_that_require_a_gradient_get_one() {
        let [scale, bias] = numbers(1.5, -2.0);
        let inputs = [unit_rows(3, 20, 8), unit_rows(4, 20, 8), scale, bias];
        for needed in [[true, false, false, true], [false, true, true, false], [false, false, true, true]] {
            check(&inputs, needed);
        }
        for loss in ["InfoNCE", "SigLIP"] {
            let leaves = inputs.each_ref().map(|x| x.copy().set_requires_grad(true));
            let value = tch::no_grad(|| tiled(loss, &leaves, 7));
            assert!(!value.requires_grad() && !tiled(loss, &inputs, 7).requires_grad());
            assert_eq!(value, tiled(loss, &leaves, 7).detach(), "the value does not depend on the gradients");
        }
    }

    #[test]
    fn equal_and_opposite_rows_stay_finite_at_the_highest_scale() {
        let row = unit_rows(5, 1, 8);
        let images = row.repeat([20, 1]);
        for sign in [1.0, -1.0] {
            for bias in [-10.0, 10.0] {
                let [scale, bias] = numbers(MAX_LOGIT_SCALE, bias);
                check(&[images.copy(), &images * sign, scale, bias], [true; 4]);
            }
        }
    }

    #[test]
    fn tiled_losses_have_the_gradient_of_their_value() {
        let inputs = [unit_rows(6, 5, 8), unit_rows(7, 5, 8), Tensor::from(1.2f32), Tensor::from(-2.0f32)];
        check_gradient(|x| info_nce_tiled(&x[0], &x[1], &x[2], 2), &inputs[..3]);
        check_gradient(|x| siglip_tiled(&x[0], &x[1], &x[2], &x[3], 2), &inputs);
    }

    #[test]
    fn autocast_does_not_narrow_them() {
        let [scale, bias] = numbers(MAX_LOGIT_SCALE, -10.0);
        let inputs = [unit_rows(8, 20, 8), unit_rows(9, 20, 8), scale, bias];
        for loss in ["InfoNCE", "SigLIP"] {
            for compute in
                [|loss: &str, x: &Inputs| plain(loss, x), |loss: &str, x: &Inputs| tiled(loss, x, 7)]
            {
                let expected = outputs(|x| compute(loss, x), &inputs, [true; 4]);
                let found =
                    outputs(|x| mm_sys::autocast_bf16(Device::Cpu, || compute(loss, x)), &inputs, [true; 4]);
                assert_eq!(found, expected, "{loss}");
            }
        }
    }
}
