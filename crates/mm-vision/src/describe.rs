//! One line on the preprocessing of images.

use crate::ImageProcessor;
use crate::geometry::Resize;
use std::fmt::{Display, Formatter, Result};

/// One line on the preprocessing.
impl Display for ImageProcessor {
    fn fmt(&self, out: &mut Formatter) -> Result {
        let filter = format!("{:?}", self.filter).to_lowercase();
        match self.resize {
            None => write!(out, "not resized")?,
            Some(Resize::Exact(width, height)) => write!(out, "resized to {width} x {height}, {filter}")?,
            Some(Resize::ShortSide(side)) => write!(out, "shortest side to {side}, {filter}")?,
            Some(Resize::ShortSideWithin { short, long }) => {
                write!(out, "shortest side to {short}, longest to {long} at most, {filter}")?;
            }
            Some(Resize::Within(width, height) | Resize::RoundedWithin(width, height)) => {
                write!(out, "fitted within {width} x {height}, {filter}")?;
            }
            Some(Resize::Cover(width, height)) => write!(out, "fitted over {width} x {height}, {filter}")?,
        }
        if let Some(crop) = self.crop {
            write!(out, "; middle {} x {}", crop.width, crop.height)?;
        }
        write!(out, "; mean {:?}, std {:?}", self.normalize.mean, self.normalize.std)
    }
}
