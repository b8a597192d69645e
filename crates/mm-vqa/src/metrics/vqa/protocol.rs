//! Which rules measure the answers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::error::{Error, Result};

/// How answers are normalised before they are compared. The same predictions differ by points between
/// protocols, so every number names its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The evaluation of GT-Vision-Lab/VQA since March 2021 (commit a013f00), run by Python 3: both sides are
    /// normalised, but only where the human answers of the question are not all equal.
    #[default]
    Official,
    /// `EvalAIAnswerProcessor` of MMF, which TextVQA's evaluation uses: both sides are always normalised,
    /// after commas and question marks are dropped and `'s` is split off.
    Evalai,
    /// Lower case and single spaces on both sides, nothing else. No published evaluation; a lower bound that
    /// shows how much the rules of the others give.
    Strict,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 3] = [Self::Official, Self::Evalai, Self::Strict];

    /// The name on the command line and beside every number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Evalai => "evalai",
            Self::Strict => "strict",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::Mismatch(format!("there is no protocol {name}; the protocols are {names}"))
        })
    }
}
