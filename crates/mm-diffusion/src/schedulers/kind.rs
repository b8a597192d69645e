//! The scheduler classes, by the name in `scheduler_config.json` and by a word for the command line.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A scheduler class of diffusers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// `DDPMScheduler`
    Ddpm,
    /// `DDIMScheduler`
    Ddim,
    /// `PNDMScheduler`
    Pndm,
    /// `LMSDiscreteScheduler`
    Lms,
    /// `EulerDiscreteScheduler`
    Euler,
    /// `EulerAncestralDiscreteScheduler`
    EulerAncestral,
    /// `HeunDiscreteScheduler`
    Heun,
    /// `DPMSolverMultistepScheduler`
    DpmMultistep,
    /// `UniPCMultistepScheduler`
    UniPc,
    /// `LCMScheduler`
    Lcm,
    /// `FlowMatchEulerDiscreteScheduler`
    FlowMatchEuler,
}

impl SchedulerKind {
    /// All classes.
    pub const ALL: [Self; 11] = [
        Self::Ddpm,
        Self::Ddim,
        Self::Pndm,
        Self::Lms,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::DpmMultistep,
        Self::UniPc,
        Self::Lcm,
        Self::FlowMatchEuler,
    ];

    /// The word for the command line. Parsed by [`FromStr`].
    pub fn word(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Lms => "lms",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_a",
            Self::Heun => "heun",
            Self::DpmMultistep => "dpmpp_2m",
            Self::UniPc => "unipc",
            Self::Lcm => "lcm",
            Self::FlowMatchEuler => "flow_match_euler",
        }
    }

    /// The `_class_name` in `scheduler_config.json`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Lms => "LMSDiscreteScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::DpmMultistep => "DPMSolverMultistepScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::Lcm => "LCMScheduler",
            Self::FlowMatchEuler => "FlowMatchEulerDiscreteScheduler",
        }
    }

    /// The class of a `_class_name`.
    pub fn from_class_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.class_name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::class_name).join(", ");
            Error::Scheduler(format!("unknown _class_name `{name}`: the known classes are {known}"))
        })
    }
}

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
            let known = Self::ALL.map(Self::word).join(", ");
            Error::Scheduler(format!("unknown scheduler `{word}`: choose one of {known}"))
        })
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class_name())
    }
}
