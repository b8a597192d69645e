//! Whether confidences are true, and what abstaining gains.
//!
//! Every function takes answers with the model's confidence and the score, from 0 (wrong) to 1 (right). A
//! threshold cannot separate answers of one confidence, so they are always on one side.

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// An answer with the model's confidence in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The probability that the model gives to its answer, from 0 to 1.
    pub confidence: f64,
    /// What the answer scores, from 0 to 1.
    pub score: f64,
}

/// Answers that are checked, sorted from the most to the least confident.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers(Vec<Answer>);

/// How answers become bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Binning {
    /// Intervals of equal width, each without its lower and with its upper end; the first has 0 too. The
    /// usual one is of 15.
    EqualWidth,
    /// Groups of equally many answers, which differ by one at most, in the order of confidence.
    EqualMass,
}

/// The answers of an interval of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// The lower end of the interval; for [`Binning::EqualMass`] the lowest confidence.
    pub lower: f64,
    /// The upper end; for [`Binning::EqualMass`] the highest confidence.
    pub upper: f64,
    /// The number of answers.
    pub answers: usize,
    /// Their mean confidence; 0 without answers.
    pub confidence: f64,
    /// Their mean score; 0 without answers.
    pub accuracy: f64,
}

/// What is answered at a threshold of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RiskPoint {
    /// Answers of at least this confidence are given.
    pub threshold: f64,
    /// The share of questions that are answered.
    pub coverage: f64,
    /// 1 less the mean score of those.
    pub risk: f64,
}

/// What a threshold is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbstainTarget {
    /// At most this risk, with the largest coverage that has it.
    Risk(f64),
    /// At least this coverage, with the highest threshold that has it.
    Coverage(f64),
}

/// What abstaining below a threshold gives on questions that did not choose it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AbstentionReport {
    /// What the threshold was to reach on the held-out questions.
    pub target: AbstainTarget,
    /// The number of held-out questions that chose the threshold.
    pub chosen_on: usize,
    /// The coverage and risk on those.
    pub chosen: RiskPoint,
    /// The number of other questions, on which the rest is measured.
    pub questions: usize,
    /// How many of them are answered.
    pub answered: usize,
    /// Their share.
    pub coverage: f64,
    /// The mean score of answered questions; `None` if none is.
    pub accuracy_of_answered: Option<f64>,
    /// The mean score that the other answers would have; `None` if there are none.
    pub accuracy_of_abstained: Option<f64>,
    /// The mean score of all answers, without abstention.
    pub accuracy_of_all: f64,
}

impl Answers {
    /// Checks and sorts answers.
    ///
    /// # Errors
    /// There are none, or a number is not from 0 to 1.
    pub fn new(mut answers: Vec<Answer>) -> Result<Self> {
        if answers.is_empty() {
            return Err(Error::Mismatch("there are no answers with confidences to calibrate".into()));
        }
        let is_wrong = |value: f64| !(0.0..=1.0).contains(&value);
        if let Some(wrong) =
            answers.iter().find(|answer| is_wrong(answer.confidence) || is_wrong(answer.score))
        {
            return Err(Error::Mismatch(format!(
                "an answer has confidence {} and score {}: both must be from 0 to 1",
                wrong.confidence, wrong.score
            )));
        }
        answers.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        Ok(Self(answers))
    }

    /// The number of answers.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Mean confidence and score in bins, from low to high confidence.
    ///
    /// # Errors
    /// `bins` is 0.
    pub fn reliability(&self, binning: Binning, bins: usize) -> Result<Vec<ReliabilityBin>> {
        if bins == 0 {
            return Err(Error::Mismatch("a reliability table needs at least one bin".into()));
        }
        let ascending: Vec<Answer> = self.0.iter().rev().copied().collect();
        let mut table = Vec::with_capacity(bins);
        let mut start = 0;
        for bin in 0..bins {
            let (lower, upper) = (bin as f64 / bins as f64, (bin + 1) as f64 / bins as f64);
            let end = match binning {
                Binning::EqualMass => (bin + 1) * ascending.len() / bins,
                Binning::EqualWidth => ascending.partition_point(|answer| answer.confidence <= upper),
            };
            let answers = ascending.get(start..end).unwrap_or_default();
            start = end;
            let ends = match (binning, answers) {
                (Binning::EqualMass, [first, .., last]) => (first.confidence, last.confidence),
                (Binning::EqualMass, [only]) => (only.confidence, only.confidence),
                (Binning::EqualMass, []) => continue,
                (Binning::EqualWidth, _) => (lower, upper),
            };
            table.push(ReliabilityBin {
                lower: ends.0,
                upper: ends.1,
                answers: answers.len(),
                confidence: mean(answers, |answer| answer.confidence).unwrap_or(0.0),
                accuracy: mean(answers, |answer| answer.score).unwrap_or(0.0),
            });
        }
        Ok(table)
    }

    /// The expected calibration error (Guo et al., 2017, section 2): the mean, over answers, of the
    /// difference between mean confidence and mean score of the answer's bin.
    ///
    /// # Errors
    /// `bins` is 0.
    pub fn expected_calibration_error(&self, binning: Binning, bins: usize) -> Result<f64> {
        let table = self.reliability(binning, bins)?;
        let weighted = table.iter().map(|bin| bin.answers as f64 * (bin.confidence - bin.accuracy).abs());
        Ok(weighted.sum::<f64>() / self.len() as f64)
    }

    /// The points of the risk-coverage curve, one for each confidence, from the highest to the lowest.
    pub fn risk_coverage(&self) -> Vec<RiskPoint> {
        let mut points = Vec::new();
        let (mut answered, mut lost) = (0, 0.0);
        for equal in self.0.chunk_by(|a, b| a.confidence == b.confidence) {
            answered += equal.len();
            lost += equal.iter().map(|answer| 1.0 - answer.score).sum::<f64>();
            points.push(RiskPoint {
                threshold: equal[0].confidence,
                coverage: answered as f64 / self.len() as f64,
                risk: lost / answered as f64,
            });
        }
        points
    }

    /// The area under the risk-coverage curve (Geifman and El-Yaniv, 2017): the mean risk of the k most
    /// confident answers, for k from 1 to all. Answers of one confidence count as in a random order, on
    /// average.
    pub fn area_under_risk_coverage(&self) -> f64 {
        let (mut answered, mut lost, mut area) = (0, 0.0, 0.0);
        for equal in self.0.chunk_by(|a, b| a.confidence == b.confidence) {
            let mean = equal.iter().map(|answer| 1.0 - answer.score).sum::<f64>() / equal.len() as f64;
            for _ in equal {
                answered += 1;
                lost += mean;
                area += lost / answered as f64;
            }
        }
        area / self.len() as f64
    }

    /// The mean score of the most confident answers: of the fewest that a threshold selects and that are at
    /// least `coverage` of all. The point has the coverage that is reached.
    ///
    /// # Errors
    /// `coverage` is not from 0 to 1.
    pub fn accuracy_at_coverage(&self, coverage: f64) -> Result<(f64, RiskPoint)> {
        let point = self.threshold_for(AbstainTarget::Coverage(coverage))?;
        Ok((1.0 - point.risk, point))
    }

    /// The threshold that reaches a target. No threshold may reach a risk: then the point has coverage 0 and
    /// a threshold above every confidence.
    ///
    /// # Errors
    /// The target is not from 0 to 1.
    pub fn threshold_for(&self, target: AbstainTarget) -> Result<RiskPoint> {
        let (AbstainTarget::Risk(value) | AbstainTarget::Coverage(value)) = target;
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::Mismatch(format!("a risk or coverage is from 0 to 1, not {value}")));
        }
        // The rounding of sums.
        let tolerance = 1e-12;
        let mut points = self.risk_coverage().into_iter();
        let found = match target {
            AbstainTarget::Coverage(least) => points.find(|point| point.coverage + tolerance >= least),
            AbstainTarget::Risk(most) => points.rfind(|point| point.risk <= most + tolerance),
        };
        Ok(found.unwrap_or(RiskPoint { threshold: 2.0, coverage: 0.0, risk: 0.0 }))
    }

    /// Chooses the threshold for `target` on these held-out answers and measures it on `others`, which must
    /// be of other questions.
    ///
    /// # Errors
    /// The target is not from 0 to 1.
    pub fn abstain(&self, others: &Self, target: AbstainTarget) -> Result<AbstentionReport> {
        let chosen = self.threshold_for(target)?;
        let answered = others.0.partition_point(|answer| answer.confidence >= chosen.threshold);
        let (given, abstained) = others.0.split_at(answered);
        let score = |answer: &Answer| answer.score;
        Ok(AbstentionReport {
            target,
            chosen_on: self.len(),
            chosen,
            questions: others.len(),
            answered,
            coverage: answered as f64 / others.len() as f64,
            accuracy_of_answered: mean(given, score),
            accuracy_of_abstained: mean(abstained, score),
            accuracy_of_all: mean(&others.0, score).unwrap_or(0.0),
        })
    }
}

fn mean(answers: &[Answer], value: impl Fn(&Answer) -> f64) -> Option<f64> {
    let count = answers.len();
    (count > 0).then(|| answers.iter().map(value).sum::<f64>() / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(pairs: &[(f64, f64)]) -> Answers {
        let answer = |&(confidence, score): &(f64, f64)| Answer { confidence, score };
        Answers::new(pairs.iter().map(answer).collect()).unwrap()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    #[test]
    fn calibration_error_is_that_of_a_computation_by_hand() {
        let answers = answers(&[(0.95, 1.0), (0.9, 0.0), (0.3, 0.0), (0.1, 0.0)]);
        // Bins of width 0.5: (0.2, 0) and (0.925, 0.5), two answers each.
        close(answers.expected_calibration_error(Binning::EqualWidth, 2).unwrap(), (0.2 + 0.425) / 2.0);
        close(answers.expected_calibration_error(Binning::EqualMass, 2).unwrap(), (0.2 + 0.425) / 2.0);
        let table = answers.reliability(Binning::EqualWidth, 10).unwrap();
        // 0.9 is in the bin that ends there, 0.1 too.
        assert_eq!(table.iter().map(|bin| bin.answers).collect::<Vec<_>>(), [1, 0, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(answers.reliability(Binning::EqualMass, 9).unwrap().len(), 4);
        assert!(answers.reliability(Binning::EqualMass, 0).is_err());
    }

    #[test]
    fn every_answer_is_in_a_bin_at_both_ends_of_the_scale() {
        let answers = answers(&[(0.0, 0.0), (1.0, 1.0), (1.0, 0.0)]);
        let table = answers.reliability(Binning::EqualWidth, 15).unwrap();
        assert_eq!((table[0].answers, table[14].answers), (1, 2));
        close(answers.expected_calibration_error(Binning::EqualWidth, 15).unwrap(), 1.0 / 3.0);
    }

    #[test]
    fn risk_grows_along_the_curve_and_ties_stay_together() {
        let answers = answers(&[(0.9, 1.0), (0.5, 0.0), (0.5, 1.0), (0.2, 0.0)]);
        let points = answers.risk_coverage();
        let points: Vec<_> = points.iter().map(|it| (it.threshold, it.coverage, it.risk)).collect();
        assert_eq!(points, [(0.9, 0.25, 0.0), (0.5, 0.75, 1.0 / 3.0), (0.2, 1.0, 0.5)]);
        // Risks of the 1, 2, 3 and 4 most confident: 0, 0.5 / 2, 1 / 3, 2 / 4.
        close(answers.area_under_risk_coverage(), (0.25 + 1.0 / 3.0 + 0.5) / 4.0);
        let (accuracy, point) = answers.accuracy_at_coverage(0.5).unwrap();
        close(accuracy, 2.0 / 3.0);
        close(point.coverage, 0.75);
    }

    #[test]
    fn a_threshold_is_chosen_on_one_part_and_measured_on_the_other() {
        let held_out = answers(&[(0.9, 1.0), (0.8, 1.0), (0.7, 0.0), (0.6, 1.0)]);
        let others = answers(&[(0.95, 1.0), (0.85, 0.0), (0.8, 1.0), (0.3, 0.0), (0.1, 1.0)]);
        let report = held_out.abstain(&others, AbstainTarget::Risk(0.0)).unwrap();
        assert_eq!((report.chosen.threshold, report.chosen_on), (0.8, 4));
        assert_eq!((report.answered, report.questions), (3, 5));
        assert_eq!(report.accuracy_of_answered, Some(2.0 / 3.0));
        assert_eq!(report.accuracy_of_abstained, Some(0.5));
        // 0.25 is reached again at full coverage.
        assert_eq!(held_out.threshold_for(AbstainTarget::Risk(0.25)).unwrap().coverage, 1.0);
    }

    #[test]
    fn an_unreachable_risk_answers_nothing() {
        let wrong = answers(&[(1.0, 0.0)]);
        let report = wrong.abstain(&wrong, AbstainTarget::Risk(0.1)).unwrap();
        assert_eq!((report.answered, report.accuracy_of_answered), (0, None));
        assert!(wrong.threshold_for(AbstainTarget::Risk(1.5)).is_err());
        assert!(wrong.threshold_for(AbstainTarget::Coverage(f64::NAN)).is_err());
        assert!(Answers::new(Vec::new()).is_err());
        assert!(Answers::new(vec![Answer { confidence: f64::NAN, score: 0.0 }]).is_err());
        assert!(Answers::new(vec![Answer { confidence: 0.5, score: 1.1 }]).is_err());
    }
}
