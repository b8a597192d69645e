//! A folder of DICOM files, such as X-ray images and CT slices.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dicom::{DicomFrame, DicomHeader, Window, is_dicom_file};
use crate::sources::broken::{Broken, check_some};
use crate::sources::walk::Walk;
use crate::{Dataset, Error, Result, Sample, SampleImage};

/// A folder of DICOM files and its subfolders at any depth, as a scanner or an archive exports them: files
/// named `.dcm`, and files of any name with DICOM's first bytes. Others, such as a `DICOMDIR`, are skipped.
///
/// The key of a sample is the path below the folder, with `#frame` in files of several frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DicomConfig {
    /// The folder.
    pub path: PathBuf,
    /// The frames of a file with several that become samples.
    #[serde(default)]
    pub frames: DicomFrames,
    /// The window that shows grey values: a number in the file, a center and a width, or the whole range.
    #[serde(default)]
    pub window: Window,
}

/// A choice of the frames of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DicomFrames {
    /// Every frame is a sample.
    #[default]
    All,
    /// The first frame.
    First,
    /// The frame in the middle; of an even number the later one.
    Middle,
}

/// The folder as a [`Dataset`], in the order of the paths and frames.
pub(crate) struct DicomDataset {
    name: String,
    root: PathBuf,
    window: Window,
    /// Paths relative to the folder.
    files: Vec<PathBuf>,
    samples: Vec<std::result::Result<Frame, Broken>>,
    /// The file of each broken sample and of each frame.
    file_of: Vec<usize>,
}

/// A sample.
struct Frame {
    number: usize,
    /// Whether its file has others.
    is_numbered: bool,
    /// The patient, or the study where the file names none.
    group: Option<String>,
}

impl DicomDataset {
    pub(crate) fn open(config: &DicomConfig) -> Result<Self> {
        let name = config.path.display().to_string();
        let walk = Walk::accepting(&config.path, is_image)?;
        if walk.images.is_empty() {
            let hint = "the folder has no DICOM file (.dcm, or `DICM` after 128 bytes)".to_owned();
            return Err(Error::Empty { name, hint });
        }
        walk.report(&config.path);
        let (mut samples, mut file_of) = (Vec::new(), Vec::new());
        for (file, below) in walk.images.iter().enumerate() {
            match DicomHeader::read(&config.path.join(below)) {
                Ok(header) => {
                    let group = header.patient_id.or(header.study_uid);
                    let is_numbered = header.frames > 1;
                    let frames = config.frames.of(header.frames);
                    samples
                        .extend(frames.map(|number| Ok(Frame { number, is_numbered, group: group.clone() })));
                }
                Err(error) => samples.push(Err(Broken::new(error.fault(), error.to_string()))),
            }
            file_of.resize(samples.len(), file);
        }
        check_some(&name, &samples)?;
        Ok(Self {
            name,
            root: config.path.clone(),
            window: config.window,
            files: walk.images,
            samples,
            file_of,
        })
    }
}

/// A DICOMDIR is DICOM too, but an index of other files.
fn is_image(path: &std::path::Path) -> bool {
    let is_index = path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR"));
    !is_index && is_dicom_file(path)
}

impl DicomFrames {
    /// The chosen ones of `count` frames.
    fn of(self, count: usize) -> std::ops::Range<usize> {
        match self {
            Self::All => 0..count,
            Self::First => 0..1,
            Self::Middle => count / 2..count / 2 + 1,
        }
    }
}

impl Dataset for DicomDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn key(&self, index: usize) -> String {
        let file = self.files[self.file_of[index]].display();
        match &self.samples[index] {
            Ok(Frame { number, is_numbered: true, .. }) => format!("{file}#{number}"),
            _ => file.to_string(),
        }
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let path = self.root.join(&self.files[self.file_of[index]]);
        match &self.samples[index] {
            Ok(frame) => {
                let image = DicomFrame { path, frame: frame.number, window: self.window };
                let sample = Sample::new(self.key(index), SampleImage::Dicom(image));
                Ok(Sample { group: frame.group.clone(), ..sample })
            }
            Err(broken) => Err(broken.error(&path.display().to_string())),
        }
    }
}
