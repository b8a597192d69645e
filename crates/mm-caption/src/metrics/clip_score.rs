//! CLIPScore and RefCLIPScore (Hessel et al. 2021): agreement of captions with images by a CLIP.

use tch::{Kind, Tensor};

/// The weight of the cosine, w in section 3: with it, scores of ViT-B/32 are roughly from 0 to 1.
pub const CLIP_SCORE_WEIGHT: f32 = 2.5;

/// What precedes every caption and reference before a CLIP embeds it.
pub const CLIP_SCORE_PROMPT: &str = "A photo depicts ";

/// CLIPScore of each caption: `2.5 max(cos, 0)` of the rows of `images` and `captions`, both `[N, D]` of
/// unit rows, with a row of both for each caption. The embedded texts begin with [`CLIP_SCORE_PROMPT`]. The
/// paper's numbers are of CLIP's ViT-B/32.
///
/// # Errors
/// The shapes differ.
pub fn clip_scores(images: &Tensor, captions: &Tensor) -> Result<Vec<f32>, tch::TchError> {
    let cosines = mm_sys::inference_mode(|| dot(images, captions))?;
    Ok(numbers(&cosines)?.into_iter().map(|cosine| CLIP_SCORE_WEIGHT * cosine.max(0.0)).collect())
}

/// RefCLIPScore of each caption: the harmonic mean of its [`clip_scores`] and `max(cos, 0)` with the closest
/// of its references. `captions` is `[N, D]` and `references` `[R, D]`, of unit rows; caption `i` has the
/// next `counts[i]` of `references`. It is 0 where one of the two is 0, as of a caption without a reference.
///
/// The paper's program does not clip the cosine of the references: the scores differ where the closest one
/// has a cosine below 0.
///
/// # Errors
/// The widths differ, or `counts` do not add up to R.
pub fn ref_clip_scores(
    clip_scores: &[f32],
    captions: &Tensor,
    references: &Tensor,
    counts: &[usize],
) -> Result<Vec<f32>, tch::TchError> {
    let places: Vec<i64> = (0..).zip(counts).flat_map(|(place, &count)| vec![place; count]).collect();
    let mut cosines = cosines_at(captions, &places, references)?.into_iter();
    let scores = clip_scores.iter().zip(counts).map(|(&score, &count)| {
        let closest = cosines.by_ref().take(count).fold(0.0, f32::max);
        if score > 0.0 && closest > 0.0 { 2.0 * score * closest / (score + closest) } else { 0.0 }
    });
    Ok(scores.collect())
}

/// The cosine of each of the unit rows `b` `[N, D]` with the row of `a` at its place.
///
/// # Errors
/// There are not N places, or the widths differ.
pub(crate) fn cosines_at(a: &Tensor, places: &[i64], b: &Tensor) -> Result<Vec<f32>, tch::TchError> {
    let cosines = mm_sys::inference_mode(|| dot(&a.f_index_select(0, &Tensor::from_slice(places))?, b))?;
    numbers(&cosines)
}

/// The dot products of the rows of `a` and `b`.
fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor, tch::TchError> {
    if a.size() != b.size() {
        let problem = format!("embeddings of {:?} and {:?}: the shapes must be equal", a.size(), b.size());
        return Err(tch::TchError::Shape(problem));
    }
    a.f_mul(b)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>, tch::TchError> {
    Vec::try_from(tensor.contiguous())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(&rows.concat()).view([rows.len() as i64, 2])
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn a_clip_score_is_the_weighted_cosine_and_never_below_0() {
        let images = rows(&[[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]]);
        let captions = rows(&[[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]]);
        assert_close(&clip_scores(&images, &captions).unwrap(), &[1.5, 2.4, 0.0]);
        assert!(clip_scores(&images, &rows(&[[1.0, 0.0]])).is_err());
        assert_eq!(clip_scores(&rows(&[]), &rows(&[])).unwrap(), [0.0; 0]);
    }

    #[test]
    fn a_ref_clip_score_is_the_harmonic_mean_with_the_closest_reference() {
        let captions = rows(&[[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]);
        let references = rows(&[[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, -1.0]]);
        // Cosines: 0.6 and 0.96; 0.6; -1; no reference.
        let found = ref_clip_scores(&[1.5, 0.9, 2.0, 1.0], &captions, &references, &[2, 1, 1, 0]).unwrap();
        assert_close(&found, &[2.0 * 1.5 * 0.96 / 2.46, 2.0 * 0.9 * 0.6 / 1.5, 0.0, 0.0]);
        assert!(ref_clip_scores(&[1.0; 4], &captions, &references, &[1, 1, 1, 0]).is_err());
    }
}
