//! From a sample to the images that are compared, and the judgement of them.

use super::{Objective, RewardModel};
use mm_core::seed;
use mm_data::{Error, Fault, Map, Result, Sample, SampleImage, SampleRng};
use mm_image::RgbImage;
use mm_text::Tokenizer;
use mm_vision::ImageProcessor;
use rand::RngExt;
use std::sync::Arc;

/// The images of a sample with the judgement of them, ready to be batched.
pub struct RewardItem {
    pub(super) key: String,
    pub(super) label: Option<String>,
    /// Resized; of a ranked list the best first.
    pub(super) images: Vec<RgbImage>,
    /// The prompt; none for a model that reads none.
    pub(super) token_ids: Option<Vec<u32>>,
    /// The rating, or the probability that the first image is preferred.
    pub(super) target: f32,
    /// How often each member of an ensemble has the sample in its bootstrap sample.
    pub(super) weights: Vec<f32>,
}

impl mm_data::Item for RewardItem {
    fn bytes(&self) -> usize {
        let images: usize = self.images.iter().map(mm_data::Item::bytes).sum();
        images + 4 * self.token_ids.as_ref().map_or(0, Vec::len)
    }
}

/// How samples become items.
pub(super) struct Preprocess {
    processor: ImageProcessor,
    /// None for a model that reads no prompt.
    tokenizer: Option<Arc<Tokenizer>>,
    members: usize,
    pub objective: Objective,
    pub background: [u8; 3],
    pub fast_decode: bool,
    /// The seed of the bootstrap samples; none: each member has every sample once.
    pub bootstrap: Option<u64>,
}

impl Preprocess {
    /// Items for `model`, in full size and without a bootstrap.
    pub fn new(model: &RewardModel, objective: Objective, background: [u8; 3]) -> Self {
        Self {
            processor: model.processor().clone(),
            tokenizer: model.tokenizer().cloned(),
            members: model.members(),
            objective,
            background,
            fast_decode: false,
            bootstrap: None,
        }
    }

    /// The map of a loader.
    pub fn into_map(self) -> Map<RewardItem> {
        Arc::new(move |sample: &Sample, rng: &mut SampleRng| self.item(sample, rng))
    }

    fn item(&self, sample: &Sample, rng: &mut SampleRng) -> Result<RewardItem> {
        let Judgement { prompt, images, target } = Judgement::of(sample, self.objective, rng)?;
        let token_ids = match &self.tokenizer {
            Some(tokenizer) => {
                let prompt = prompt.ok_or_else(|| Error::bad(Fault::NoCaption, "no prompt"))?;
                let ids = tokenizer.encode(prompt);
                Some(ids.map_err(|error| Error::bad(Fault::Text, error.to_string()))?)
            }
            None => None,
        };
        Ok(RewardItem {
            key: sample.key.clone(),
            label: sample.label.clone(),
            images: images.into_iter().map(|image| self.image(image)).collect::<Result<_>>()?,
            token_ids,
            target,
            weights: (0..self.members).map(|member| self.weight(&sample.key, member)).collect(),
        })
    }

    fn image(&self, image: &SampleImage) -> Result<RgbImage> {
        let divisor =
            |width, height| if self.fast_decode { self.processor.largest_divisor(width, height) } else { 1 };
        let image = image.decode_reduced(self.background, divisor)?;
        self.processor.resize_reduced(&image).map_err(|error| Error::bad(Fault::Image, error.to_string()))
    }

    fn weight(&self, key: &str, member: usize) -> f32 {
        self.bootstrap.map_or(1.0, |run_seed| poisson(seed::derive(run_seed, key, member as u64)))
    }
}

/// What a sample says about images.
struct Judgement<'a> {
    prompt: Option<&'a str>,
    images: Vec<&'a SampleImage>,
    target: f32,
}

impl<'a> Judgement<'a> {
    /// The judgement of `sample` that `objective` needs. An edit with the captions of both images is a
    /// preference: the prompt is one of them, drawn by `rng`, and its own image is preferred.
    fn of(sample: &'a Sample, objective: Objective, rng: &mut SampleRng) -> Result<Self> {
        let prompt = sample.captions.first().map(String::as_str);
        let bad = |problem: &str| Err(Error::bad(Fault::Other, problem));
        match objective {
            Objective::Regression => {
                let images = vec![sample.image()?];
                Ok(Self { prompt, images, target: rating(sample)? })
            }
            Objective::Preferences => {
                let images = sample.image_pair()?.to_vec();
                let is_first = rng.random::<bool>();
                match (sample.preferred, &sample.captions[..]) {
                    (Some(target), _) if !(0.0..=1.0).contains(&target) => bad(&format!(
                        "the first image is preferred with probability {target}: not from 0 to 1"
                    )),
                    (Some(target), _) => Ok(Self { prompt, images, target }),
                    // Captions that do not tell the images apart prefer neither.
                    (None, [before, after]) if sample.instruction.is_some() && before == after => {
                        Ok(Self { prompt: Some(before), images, target: 0.5 })
                    }
                    (None, [before, after]) if sample.instruction.is_some() => {
                        let (prompt, target) = if is_first { (before, 1.0) } else { (after, 0.0) };
                        Ok(Self { prompt: Some(prompt), images, target })
                    }
                    _ => bad("no preference between its two images, and no edit with both captions"),
                }
            }
            Objective::Ranking => {
                if sample.images.len() < 2 {
                    return Err(Error::bad(Fault::NoImage, "a ranked list needs two images or more"));
                }
                if sample.preferred.is_some() || sample.instruction.is_some() {
                    return bad("a pair, and no ranked list: set objective.kind = \"preferences\"");
                }
                Ok(Self { prompt, images: sample.images.iter().collect(), target: 1.0 })
            }
        }
    }
}

/// The rating in the label of `sample`.
///
/// # Errors
/// There is none, or it is not a finite number.
pub(super) fn rating(sample: &Sample) -> Result<f32> {
    let bad = |problem: String| Error::bad(Fault::Row, problem);
    let label = sample.label.as_deref();
    let label = label.ok_or_else(|| bad("no rating: name its column by label_column".to_owned()))?;
    let number = label.trim().parse::<f32>().ok().filter(|rating| rating.is_finite());
    number.ok_or_else(|| bad(format!("the rating {label:?} is not a number")))
}

/// A number from the Poisson distribution of mean 1, for uniform random `bits`: how often a sample is in a
/// bootstrap sample, in the limit of many samples (Oza and Russell 2001, "Online bagging and boosting").
fn poisson(bits: u64) -> f32 {
    let uniform = (bits >> 11) as f64 / (1u64 << 53) as f64;
    let (mut count, mut probability) = (0, (-1f64).exp());
    let mut sum = probability;
    // Below 2^-53 a further term is out of reach.
    while uniform >= sum && count < 18 {
        count += 1;
        probability /= f64::from(count);
        sum += probability;
    }
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn sample(images: usize) -> Sample {
        Sample {
            images: vec![SampleImage::Static(b""); images],
            captions: vec!["a".into()],
            ..Sample::default()
        }
    }

    fn judge(sample: &Sample, objective: Objective) -> std::result::Result<(Option<String>, f32), String> {
        let found = Judgement::of(sample, objective, &mut SampleRng::seed_from_u64(1));
        found.map(|found| (found.prompt.map(str::to_owned), found.target)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rating_is_the_number_in_the_label() {
        let of = |label: Option<&str>| {
            judge(&Sample { label: label.map(str::to_owned), ..sample(1) }, Objective::Regression)
        };
        assert_eq!(of(Some(" 5.5 ")).unwrap(), (Some("a".to_owned()), 5.5));
        assert_eq!(of(Some("good")).unwrap_err(), "the rating \"good\" is not a number");
        assert_eq!(of(Some("nan")).unwrap_err(), "the rating \"nan\" is not a number");
        assert!(of(None).unwrap_err().starts_with("no rating"));
    }

    #[test]
    fn a_pair_has_its_preference_and_an_edit_prefers_the_image_of_the_drawn_caption() {
        let of = |sample: Sample| judge(&sample, Objective::Preferences);
        assert_eq!(of(Sample { preferred: Some(0.75), ..sample(2) }).unwrap().1, 0.75);
        assert!(of(Sample { preferred: Some(0.75), ..sample(1) }).unwrap_err().contains("1 images"));
        assert!(of(Sample { preferred: Some(f32::NAN), ..sample(2) }).unwrap_err().contains("NaN"));
        assert!(of(sample(2)).unwrap_err().starts_with("no preference"));

        let edit = |captions: [&str; 2]| Sample {
            captions: captions.map(str::to_owned).to_vec(),
            instruction: Some("make it snow".to_owned()),
            ..sample(2)
        };
        assert_eq!(of(edit(["a", "a"])).unwrap(), (Some("a".to_owned()), 0.5));
        let mut seen = [0; 2];
        let (mut rng, drawn) = (SampleRng::seed_from_u64(1), edit(["before", "after"]));
        for _ in 0..100 {
            let found = Judgement::of(&drawn, Objective::Preferences, &mut rng).unwrap();
            assert_eq!(found.prompt, Some(if found.target == 1.0 { "before" } else { "after" }));
            seen[found.target as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 30), "{seen:?}");
    }

    #[test]
    fn a_list_has_two_images_or_more_and_is_no_pair() {
        assert!(judge(&sample(3), Objective::Ranking).is_ok());
        assert!(judge(&sample(1), Objective::Ranking).unwrap_err().contains("two images or more"));
        let pair = Sample { preferred: Some(1.0), ..sample(2) };
        assert!(judge(&pair, Objective::Ranking).unwrap_err().contains("objective.kind = \"preferences\""));
    }

    #[test]
    fn bootstrap_weights_have_the_mean_and_variance_of_poissons_distribution() {
        let weights: Vec<f32> = (0..20_000).map(|index| poisson(seed::derive(3, "key", index))).collect();
        let mean = weights.iter().sum::<f32>() / weights.len() as f32;
        let variance =
            weights.iter().map(|weight| (weight - mean).powi(2)).sum::<f32>() / weights.len() as f32;
        assert!((mean - 1.0).abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!(poisson(0) == 0.0 && (15.0..=18.0).contains(&poisson(u64::MAX)));
    }
}
