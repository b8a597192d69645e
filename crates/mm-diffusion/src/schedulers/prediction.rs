//! From the model's output to x0 and the noise, for each prediction type, and the limits of x0.

use super::PredictionType;
use super::settings::Settings;
use tch::Tensor;

/// x0 where the sample is `alpha` x0 + `sigma` noise.
pub(super) fn original(
    prediction: PredictionType,
    output: &Tensor,
    sample: &Tensor,
    alpha: f64,
    sigma: f64,
) -> Tensor {
    match prediction {
        PredictionType::Epsilon => (sample - output * sigma) / alpha,
        PredictionType::Sample => output.shallow_clone(),
        PredictionType::VPrediction => sample * alpha - output * sigma,
        PredictionType::FlowPrediction => sample - output * sigma, // alpha is 1 - sigma
    }
}

/// x0 where the sample is x0 + `sigma` noise. The model's input is the sample / sqrt(sigma^2 + 1), of which
/// its v is a part.
pub(super) fn original_of_scaled(
    prediction: PredictionType,
    output: &Tensor,
    sample: &Tensor,
    sigma: f32,
) -> Tensor {
    let variance = sigma * sigma + 1.0;
    match prediction {
        PredictionType::Epsilon | PredictionType::FlowPrediction => sample - output * f64::from(sigma),
        PredictionType::Sample => output.shallow_clone(),
        PredictionType::VPrediction => {
            output * f64::from(-sigma / variance.sqrt()) + sample / f64::from(variance)
        }
    }
}

/// x0 within the limits of the settings: dynamic thresholding (Saharia et al. 2022), else clipping.
pub(super) fn limited(settings: &Settings, original: Tensor) -> Tensor {
    if settings.thresholding {
        thresholded(settings, &original)
    } else if settings.clip_sample {
        original.clamp(-settings.clip_sample_range, settings.clip_sample_range)
    } else {
        original
    }
}

/// Each image of `[B, ...]` divided by a high quantile of its absolute values, where that is more than 1.
fn thresholded(settings: &Settings, original: &Tensor) -> Tensor {
    let flat = original.flatten(1, -1); // [B, C*H*W]
    let bound = flat.abs().quantile_scalar(settings.dynamic_thresholding_ratio, 1, true, "linear");
    // An upper limit below 1 wins over the lower limit, as in torch.clamp.
    let bound = bound.clamp_min(1.0).clamp_max(settings.sample_max_value); // [B, 1]
    (flat.clamp_tensor(Some(&-&bound), Some(&bound)) / &bound).view_as(original)
}
