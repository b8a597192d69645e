//! InfoNCE and the pairwise sigmoid loss on the whole matrix of logits.

use tch::{Kind, Tensor};

/// `ln(1 / 0.07)`: the log of the initial inverse temperature (Radford et al. 2021, section 2.5).
pub const INITIAL_LOGIT_SCALE: f64 = 2.659_260_036_932_778;

/// `ln(100)`: the upper bound of the log of the inverse temperature (Radford et al. 2021, section 2.5).
pub const MAX_LOGIT_SCALE: f64 = 4.605_170_185_988_092;

/// The symmetric InfoNCE loss (Radford et al. 2021, figure 3): the mean of the cross-entropies of classifying
/// each image's text and each text's image within the batch.
///
/// `image_embeds` and `text_embeds` are `[B, D]` with unit rows, paired by row; `logit_scale` is the scalar
/// log of the inverse temperature. The matrix of logits is kept once: its rows and columns are reduced,
/// without a softmax over each and a transposed copy.
pub fn info_nce(image_embeds: &Tensor, text_embeds: &Tensor, logit_scale: &Tensor) -> Tensor {
    let logits = logits(image_embeds, text_embeds, logit_scale); // [B, B]
    let paired = logits.diagonal(0, 0, 1);
    let image_to_text = logits.logsumexp([1i64].as_slice(), false) - &paired;
    let text_to_image = logits.logsumexp([0i64].as_slice(), false) - &paired;
    (image_to_text + text_to_image).mean(Kind::Float) * 0.5
}

/// The pairwise sigmoid loss (Zhai et al. 2023, "Sigmoid loss for language image pre-training", algorithm 1):
/// each of the B x B pairs is a binary classification; the sum is divided by B.
///
/// Shapes as for [`info_nce`]; `logit_bias` is a scalar, initially -10, with `logit_scale` initially `ln 10`.
pub fn siglip(
    image_embeds: &Tensor,
    text_embeds: &Tensor,
    logit_scale: &Tensor,
    logit_bias: &Tensor,
) -> Tensor {
    siglip_at(image_embeds, text_embeds, 0, logit_scale, logit_bias)
}

/// [`siglip`] of a part of a batch's images, `[b, D]`, with all of its texts `[B, D]`: the sum over these
/// pairs divided by b. The text of image i is in row `first` + i.
pub fn siglip_at(
    image_embeds: &Tensor,
    text_embeds: &Tensor,
    first: i64,
    logit_scale: &Tensor,
    logit_bias: &Tensor,
) -> Tensor {
    let count = image_embeds.size()[0];
    let logits = logits(image_embeds, text_embeds, logit_scale) + logit_bias; // [b, B]
    let labels = logits.detach().full_like(-1.0);
    let _ = labels.diagonal(first, 0, 1).fill_(1.0);
    (labels * logits).log_sigmoid().sum(Kind::Float) / -(count as f64)
}

/// The logits `[N, M]` of unit rows `[N, D]` and `[M, D]` at a temperature, always in f32, also under
/// autocast: at a scale of 100 a bf16 logit has an error of up to 0.25.
pub fn logits(image_embeds: &Tensor, text_embeds: &Tensor, logit_scale: &Tensor) -> Tensor {
    let scaled = image_embeds.to_kind(Kind::Float) * logit_scale.exp();
    let texts = text_embeds.to_kind(Kind::Float).transpose(0, 1);
    mm_sys::without_autocast(scaled.device(), || scaled.matmul(&texts))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use mm_testing::{assert_close, normal};
    use tch::Device;

    pub fn unit_rows(seed: u64, count: i64, width: i64) -> Tensor {
        let x = normal(seed, &[count, width]);
        &x / x.norm_scalaropt_dim(2.0, [1i64].as_slice(), true)
    }

    /// The magnitude of the terms that are rounded in a loss of `inputs` (images and texts `[B, D]`, the log
    /// of the scale and, for SigLIP, a bias): the sum of the absolute values of the terms of its value, and
    /// of its gradient for each input. Gradients contain exponentials of logits, which amplify the rounding
    /// of a logit by its size.
    pub fn terms(inputs: &[Tensor]) -> Vec<Tensor> {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.detach().to_kind(Kind::Double)).collect();
        let (images, texts, scale) = (inputs[0].abs(), inputs[1].abs(), inputs[2].exp());
        let products = inputs[0].matmul(&inputs[1].tr()) * &scale;
        let count = products.size()[0];
        let pairs = Tensor::eye(count, (Kind::Double, Device::Cpu));
        let (value, derivatives) = match inputs.get(3) {
            Some(bias) => {
                let logits: Tensor = (products + bias) * (1.0 - 2.0 * pairs);
                let amplified = (1.0 + logits.abs().max()) / count as f64;
                (logits.softplus().sum(Kind::Double) * &amplified, logits.sigmoid() * amplified)
            }
            None => {
                let sums = [1i64, 0]
                    .map(|over| products.logsumexp([over].as_slice(), false).abs().mean(Kind::Double));
                let shares = products.softmax(1, None) + products.softmax(0, None) + 2.0 * pairs;
                let largest = products.abs().max();
                (sums.into_iter().sum::<Tensor>() + &largest, shares * (1.0 + largest) / (2 * count) as f64)
            }
        };
        let of_images = derivatives.matmul(&texts) * &scale;
        let of_texts = derivatives.tr().matmul(&images) * &scale;
        let of_scale = (&of_images * &images).sum(Kind::Double);
        let of_bias = derivatives.sum(Kind::Double);
        [value, of_images, of_texts, of_scale, of_bias].into_iter().take(1 + inputs.len()).collect()
    }

    /// Compares the gradient that autograd gives for each input with a central difference.
    pub fn check_gradient(loss: impl Fn(&[Tensor]) -> Tensor, inputs: &[Tensor]) {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.copy().set_requires_grad(true)).collect();
        let gradients = Tensor::run_backward(&[loss(&leaves)], &leaves, false, false);
        for (index, (input, gradient)) in inputs.iter().zip(&gradients).enumerate() {
            let direction = normal(7 + index as u64, &input.size());
            let along = |step: f64| {
                let mut moved: Vec<Tensor> = inputs.iter().map(Tensor::shallow_clone).collect();
                moved[index] = input + &direction * step;
                loss(&moved).double_value(&[])
            };
            let step = 1e-2; // f32 inputs: smaller steps drown in rounding
            let numeric = (along(step) - along(-step)) / (2.0 * step);
            let analytic = (gradient * &direction).sum(Kind::Double).double_value(&[]);
            assert!(
                (numeric - analytic).abs() < 5e-3 * (1.0 + numeric.abs()),
                "input {index}: {numeric} vs {analytic}"
            );
        }
    }

    #[test]
    fn info_nce_has_the_gradient_of_its_value() {
        let inputs = [unit_rows(1, 5, 8), unit_rows(2, 5, 8), Tensor::from(1.5f32)];
        check_gradient(|x| info_nce(&x[0], &x[1], &x[2]), &inputs);
    }

    #[test]
    fn siglip_has_the_gradient_of_its_value() {
        let inputs = [unit_rows(3, 5, 8), unit_rows(4, 5, 8), Tensor::from(1.2f32), Tensor::from(-2.0f32)];
        check_gradient(|x| siglip(&x[0], &x[1], &x[2], &x[3]), &inputs);
    }

    #[test]
    fn info_nce_equals_the_two_cross_entropies() {
        let (image, text, scale) = (unit_rows(5, 5, 8), unit_rows(6, 5, 8), Tensor::from(2.0f32));
        let logits = image.matmul(&text.tr()) * scale.exp();
        let targets = Tensor::arange(5, (Kind::Int64, Device::Cpu));
        let expected = (logits.cross_entropy_for_logits(&targets)
            + logits.tr().cross_entropy_for_logits(&targets))
            / 2.0;
        let found = info_nce(&image, &text, &scale);
        assert_close("InfoNCE", &found, &expected, &terms(&[image, text, scale])[0]);
    }
}
