//! Weighted sums of rewards, with their scores checked.

use crate::reward::{DifferentiableReward, batch_size, check_count};
use crate::{Error, Result, Reward, RewardConfig};
use mm_core::DeviceConfig;
use mm_image::RgbImage;
use tch::{Device, Kind, Tensor};

/// A reward of a sum.
#[derive(Debug)]
pub struct WeightedReward {
    /// Its name in errors and reports.
    pub name: String,
    /// The factor of its scores.
    pub weight: f64,
    /// The reward.
    pub reward: Box<dyn Reward>,
}

/// A weighted sum of rewards, itself a reward. Every score is checked: a NaN or a wrong number of them is an
/// error that names the reward.
#[derive(Debug)]
pub struct RewardSum {
    parts: Vec<WeightedReward>,
}

/// The scores of N images.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardScores {
    /// The weighted sums `[N]`.
    pub total: Vec<f32>,
    /// The scores `[N]` of each reward, without its weight, in the order of [`RewardSum::names`].
    pub parts: Vec<Vec<f32>>,
}

impl RewardSum {
    /// The sum of `parts`.
    ///
    /// # Errors
    /// There are none, or a weight is not a finite number.
    pub fn new(parts: Vec<WeightedReward>) -> Result<Self> {
        if parts.is_empty() {
            return Err(Error::Config("there is no reward: add a [[reward]] table".to_owned()));
        }
        for WeightedReward { name, weight, .. } in &parts {
            if !weight.is_finite() {
                return Err(Error::Config(format!("the weight of the reward {name} is {weight}")));
            }
        }
        Ok(Self { parts })
    }

    /// Opens the rewards of `configs` on `device`. A reward's name is its kind, with a number where several
    /// have one kind.
    ///
    /// # Errors
    /// As [`RewardSum::new`] and [`RewardConfig::open`].
    pub fn open(configs: &[RewardConfig], device: &DeviceConfig) -> Result<Self> {
        let part = |(index, config): (usize, &RewardConfig)| {
            let before = configs[..index].iter().filter(|other| other.kind() == config.kind()).count();
            let name = match before {
                0 => config.kind().to_owned(),
                count => format!("{} {}", config.kind(), count + 1),
            };
            Ok(WeightedReward { name, weight: config.weight(), reward: config.open(device)? })
        };
        Self::new(configs.iter().enumerate().map(part).collect::<Result<_>>()?)
    }

    /// The names of the rewards.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.name.as_str())
    }

    /// Scores `images` of any size, each with the prompt at its index.
    ///
    /// # Errors
    /// As [`Reward::score`]; a reward gives a NaN, an infinity or a wrong number of scores.
    pub fn score_parts(&self, images: &[RgbImage], prompts: &[&str]) -> Result<RewardScores> {
        check_count(images.len(), prompts)?;
        let score = |part: &WeightedReward| {
            let scores = if images.is_empty() { Vec::new() } else { part.reward.score(images, prompts)? };
            part.check(&scores, prompts)?;
            Ok(scores)
        };
        let parts: Vec<Vec<f32>> = self.parts.iter().map(score).collect::<Result<_>>()?;
        let total = |index: usize| {
            let terms = self.parts.iter().zip(&parts).map(|(part, scores)| (part.weight, scores[index]));
            terms.map(|(weight, score)| weight * f64::from(score)).sum::<f64>() as f32
        };
        Ok(RewardScores { total: (0..images.len()).map(total).collect(), parts })
    }

    /// Checks that every reward is differentiable.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check_differentiable(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.differentiable().map(drop))
    }
}

impl Reward for RewardSum {
    fn score(&self, images: &[RgbImage], prompts: &[&str]) -> Result<Vec<f32>> {
        Ok(self.score_parts(images, prompts)?.total)
    }

    fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
        self.check_differentiable().is_ok().then_some(self)
    }
}

impl DifferentiableReward for RewardSum {
    fn score_pixels(&self, pixels: &Tensor, prompts: &[&str]) -> Result<Tensor> {
        check_count(batch_size(pixels), prompts)?;
        let mut total: Option<Tensor> = None;
        for part in &self.parts {
            let scores = part.differentiable()?.score_pixels(pixels, prompts)?;
            let numbers = scores.detach().to_kind(Kind::Float).to_device(Device::Cpu);
            part.check(&Vec::try_from(numbers)?, prompts)?;
            let weighted = scores * part.weight;
            total = Some(match total {
                Some(total) => total.f_add(&weighted)?,
                None => weighted,
            });
        }
        total.ok_or_else(|| Error::Config("there is no reward".to_owned()))
    }
}

impl WeightedReward {
    fn differentiable(&self) -> Result<&dyn DifferentiableReward> {
        let missing = || Error::NotDifferentiable { reward: self.name.clone() };
        self.reward.differentiable().ok_or_else(missing)
    }

    /// Checks the scores of images with `prompts`.
    fn check(&self, scores: &[f32], prompts: &[&str]) -> Result<()> {
        let reward = self.name.clone();
        if scores.len() != prompts.len() {
            return Err(Error::Count { reward, scores: scores.len(), images: prompts.len() });
        }
        match scores.iter().position(|score| !score.is_finite()) {
            Some(index) => {
                let (score, prompt) = (scores[index], prompts[index].to_owned());
                Err(Error::NotFinite { reward, score, index, prompt })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives these scores, whatever the images.
    #[derive(Debug)]
    struct Fixed(Vec<f32>);

    impl Reward for Fixed {
        fn score(&self, _: &[RgbImage], _: &[&str]) -> Result<Vec<f32>> {
            Ok(self.0.clone())
        }
    }

    /// The mean of the pixels, and NaN for a black image in gradients.
    #[derive(Debug)]
    struct Brightness;

    impl Reward for Brightness {
        fn score(&self, images: &[RgbImage], _: &[&str]) -> Result<Vec<f32>> {
            Ok(images.iter().map(|image| f32::from(image.as_raw()[0]) / 255.0).collect())
        }

        fn differentiable(&self) -> Option<&dyn DifferentiableReward> {
            Some(self)
        }
    }

    impl DifferentiableReward for Brightness {
        fn score_pixels(&self, pixels: &Tensor, _: &[&str]) -> Result<Tensor> {
            let mean = pixels.f_mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)?;
            Ok(mean.f_div(&mean)? * mean)
        }
    }

    fn part(name: &str, weight: f64, reward: impl Reward + 'static) -> WeightedReward {
        WeightedReward { name: name.to_owned(), weight, reward: Box::new(reward) }
    }

    fn sum(parts: Vec<WeightedReward>) -> RewardSum {
        RewardSum::new(parts).unwrap()
    }

    fn message(scores: &[f32]) -> String {
        let images = [RgbImage::new(2, 2), RgbImage::new(2, 2)];
        let rewards = sum(vec![part("broken", 1.0, Fixed(scores.to_vec()))]);
        rewards.score(&images, &["a cat", "a dog"]).unwrap_err().to_string()
    }

    #[test]
    fn scores_are_added_by_weight() {
        let images = [RgbImage::from_pixel(2, 2, [255; 3].into()), RgbImage::new(2, 2)];
        let rewards = sum(vec![part("a", 2.0, Fixed(vec![1.0, 3.0])), part("b", -0.5, Brightness)]);
        let scores = rewards.score_parts(&images, &["", ""]).unwrap();
        assert_eq!(scores.total, [1.5, 6.0]);
        assert_eq!(scores.parts, [vec![1.0, 3.0], vec![1.0, 0.0]]);
        assert_eq!(rewards.names().collect::<Vec<_>>(), ["a", "b"]);
        assert!(rewards.score(&[], &[]).unwrap().is_empty());
    }

    #[test]
    fn a_nan_or_a_wrong_number_of_scores_is_one_clear_error() {
        assert_eq!(message(&[1.0]), "the reward broken gives 1 scores of 2 images");
        assert_eq!(
            message(&[1.0, f32::NAN]),
            "the reward broken gives NaN for image 1 (\"a dog\"): its weights are broken"
        );
        assert!(message(&[f32::INFINITY, 0.0]).contains("gives inf for image 0 (\"a cat\")"));
        let rewards = sum(vec![part("bright", 1.0, Brightness)]);
        let message = rewards.score(&[RgbImage::new(1, 1)], &["a", "b"]).unwrap_err().to_string();
        assert_eq!(message, "1 images with 2 prompts: each image has one");
        let black = Tensor::zeros([1, 3, 2, 2], (Kind::Float, Device::Cpu));
        let message = rewards.score_pixels(&black, &["night"]).unwrap_err().to_string();
        assert!(message.contains("bright gives NaN for image 0 (\"night\")"), "{message}");
    }

    #[test]
    fn a_sum_is_differentiable_where_all_of_it_is() {
        let pixels = Tensor::full([2, 3, 2, 2], 0.5, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let both = sum(vec![part("one", 2.0, Brightness), part("two", 1.0, Brightness)]);
        let scores = both.differentiable().unwrap().score_pixels(&pixels, &["", ""]).unwrap();
        assert_eq!(Vec::<f32>::try_from(&scores).unwrap(), [1.5, 1.5]);
        scores.sum(Kind::Float).backward();
        assert!((pixels.grad().sum(Kind::Float).double_value(&[]) - 6.0).abs() < 1e-6);
        let fixed = sum(vec![part("one", 1.0, Brightness), part("size", 1.0, Fixed(vec![0.0; 2]))]);
        assert!(fixed.differentiable().is_none());
        let message = fixed.score_pixels(&pixels, &["", ""]).unwrap_err().to_string();
        assert!(message.starts_with("the reward size is not differentiable"), "{message}");
    }

    #[test]
    fn a_sum_of_nothing_or_with_a_weight_that_is_no_number_is_refused() {
        assert!(RewardSum::new(Vec::new()).unwrap_err().to_string().contains("add a [[reward]] table"));
        let message = RewardSum::new(vec![part("a", f64::NAN, Brightness)]).unwrap_err().to_string();
        assert_eq!(message, "the weight of the reward a is NaN");
    }
}
