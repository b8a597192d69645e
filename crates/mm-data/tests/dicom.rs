//! DICOM files as pydicom shows them (`xtask/goldens/dicom.py`).

use std::fs;
use std::path::{Path, PathBuf};

use mm_data::dicom::{DicomImage, Window};
use mm_data::{Dataset, DatasetConfig, Fault, SampleImage};
use serde::Deserialize;

/// A line of `cases.json`: an image that must be equal, or a part of the message of a refusal.
#[derive(Deserialize)]
struct Case {
    file: PathBuf,
    #[serde(default)]
    frame: usize,
    #[serde(default)]
    window: usize,
    image: Option<String>,
    /// The allowed difference: 1, or 3 where decoders of JPEG round chroma differently.
    #[serde(default)]
    levels: u8,
    error: Option<String>,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/dicom")
}

fn cases(folder: &Path) -> Vec<Case> {
    serde_json::from_slice(&fs::read(folder.join("cases.json")).unwrap()).unwrap()
}

/// The largest difference from pydicom's image, in levels of 255.
fn difference(folder: &Path, case: &Case) -> Result<u8, String> {
    let bytes = fs::read(folder.join(&case.file)).unwrap();
    let image =
        DicomImage::parse(&bytes).and_then(|image| image.render(case.frame, Window::Number(case.window)));
    let ours = image.map_err(|error| error.to_string())?;
    let theirs = folder.join(case.image.as_ref().expect("an image"));
    let theirs = mm_image::decode(&fs::read(theirs).unwrap(), [0; 3]).unwrap();
    assert_eq!(ours.dimensions(), theirs.dimensions(), "{}", case.file.display());
    Ok(ours.as_raw().iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0))
}

#[test]
fn every_encoding_and_window_equals_pydicoms_to_one_level() {
    let folder = goldens();
    let cases = cases(&folder);
    let images = cases.iter().filter(|case| case.image.is_some());
    let mut compared = 0;
    for case in images {
        let found = difference(&folder, case);
        let is_equal = found.as_ref().is_ok_and(|levels| *levels <= case.levels);
        assert!(is_equal, "{}: {found:?}", case.file.display());
        compared += 1;
    }
    assert_eq!(compared, 48);
}

#[test]
fn files_without_a_readable_image_are_refused_with_the_reason() {
    let folder = goldens();
    let mut refused = 0;
    for case in cases(&folder) {
        let Some(expected) = &case.error else { continue };
        let bytes = fs::read(folder.join(&case.file)).unwrap();
        let rendered = DicomImage::parse(&bytes).and_then(|image| image.render(0, Window::default()));
        let error = rendered.unwrap_err();
        assert!(error.to_string().contains(expected), "{}: {error}", case.file.display());
        assert_eq!(error.fault(), Fault::Image);
        refused += 1;
    }
    assert!(refused > 5);
}

/// `MM_PYDICOM_DATA` names a folder that `xtask/goldens/shared/pydicom_files.py` wrote, with pydicom's images
/// of all files of PyPI `pydicom` and `pydicom-data`. Without it nothing is compared.
#[test]
fn the_files_of_pydicom_are_equal_or_refused_with_a_reason() {
    let Some(folder) = std::env::var_os("MM_PYDICOM_DATA").map(PathBuf::from) else { return };
    let (mut counts, mut differences) = ([0; 3], Vec::new());
    for case in cases(&folder) {
        let name = format!("{} {} {}", case.file.display(), case.frame, case.window);
        if let Some(error) = &case.error {
            counts[2] += 1;
            let ours = fs::read(&case.file).map_err(|error| error.to_string()).and_then(|bytes| {
                let image =
                    DicomImage::parse(&bytes).and_then(|image| image.render(case.frame, Window::Number(0)));
                image.map_err(|error| error.to_string())
            });
            println!("pydicom refuses {name}: {error}\n    here: {:?}", ours.map(|image| image.dimensions()));
            continue;
        }
        match difference(&folder, &case) {
            Ok(levels) => {
                counts[0] += 1;
                if levels > case.levels {
                    differences.push(format!("{levels} levels: {name}"));
                }
            }
            Err(error) => {
                counts[1] += 1;
                println!("refused {name}: {error}");
            }
        }
    }
    println!("{} compared, {} refused here, {} refused by pydicom", counts[0], counts[1], counts[2]);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn values_are_those_after_the_rescale_and_the_header_is_read() {
    let bytes = fs::read(goldens().join("ct.dcm")).unwrap();
    let image = DicomImage::parse(&bytes).unwrap();
    // The stored pixels are 150 x + 31 y - 1100, the rescale is 1.5 v - 200.
    let values = image.values(0).unwrap();
    assert_eq!(values.len(), 12 * 18);
    assert_eq!([values[0], values[1], values[18]], [-1850.0, -1625.0, -1803.5]);
    let header = image.header();
    assert_eq!((header.frames, header.patient_id.as_deref()), (1, Some("P-7")));
    assert_eq!(
        (header.study_uid.as_deref(), header.series_uid.as_deref()),
        (Some("1.2.3.5"), Some("1.2.3.6"))
    );
    assert_eq!((header.modality.as_deref(), header.body_part.as_deref()), (Some("CT"), Some("CHEST")));
    let colours = fs::read(goldens().join("rgb.dcm")).unwrap();
    assert!(DicomImage::parse(&colours).unwrap().values(0).is_err());
}

#[test]
fn a_window_may_be_given_or_be_the_range_of_the_frame() {
    let bytes = fs::read(goldens().join("ct.dcm")).unwrap();
    let image = DicomImage::parse(&bytes).unwrap();
    let given = image.render(0, Window::Range { center: 40.0, width: 400.0 }).unwrap();
    assert_eq!(given, image.render(0, Window::Number(0)).unwrap());
    let range = image.render(0, Window::MinMax).unwrap();
    assert_eq!((range.get_pixel(0, 0).0, range.get_pixel(17, 11).0), ([0; 3], [255; 3]));
    let message = image.render(0, Window::Number(2)).unwrap_err().to_string();
    assert!(message.contains("the file has no window 2, only 2, counted from 0"), "{message}");
    assert!(image.render(1, Window::MinMax).unwrap_err().to_string().contains("frame 1, from 0, of 1"));
}

#[test]
fn files_without_preamble_or_without_file_meta_information_are_read() {
    let expected = |bytes: &[u8]| DicomImage::parse(bytes).unwrap().render(0, Window::default()).unwrap();
    for name in ["ct.dcm", "ct-implicit.dcm", "ct-big-endian.dcm"] {
        let file = fs::read(goldens().join(name)).unwrap();
        let without_preamble = &file[132..];
        assert_eq!(expected(without_preamble), expected(&file), "{name}");
        // The file meta information is its group length and as many bytes as that says.
        let length = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
        assert_eq!(expected(&file[144 + length..]), expected(&file), "{name}");
    }
}

#[test]
fn a_truncated_file_says_how_much_is_missing() {
    let file = fs::read(goldens().join("ct.dcm")).unwrap();
    let reason = |length: usize| DicomImage::parse(&file[..length]).unwrap_err().to_string();
    let message = reason(file.len() - 10);
    assert!(message.contains("are 432 bytes, but the pixel data has 422"), "{message}");
    assert!(reason(200).contains("truncated"), "{}", reason(200));
    assert!(reason(0).contains("no pixel data"), "{}", reason(0));
}

#[test]
fn any_data_set_reads_dicom_where_it_reads_images() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("ct")).unwrap();
    fs::copy(goldens().join("ct.dcm"), folder.path().join("ct/slice.DCM")).unwrap();
    fs::write(folder.path().join("list.csv"), "image,caption\nct/slice.DCM,a slice\n").unwrap();
    let root = folder.path().display();
    let expected = DicomImage::parse(&fs::read(goldens().join("ct.dcm")).unwrap())
        .and_then(|image| image.render(0, Window::default()))
        .unwrap();
    for config in
        [format!("kind = 'folder'\npath = '{root}'"), format!("kind = 'csv'\npath = '{root}/list.csv'")]
    {
        let dataset = toml::from_str::<DatasetConfig>(&config).unwrap().open().unwrap();
        assert_eq!(dataset.len(), 1);
        let sample = dataset.sample(0).unwrap();
        let image = sample.image().unwrap();
        assert_eq!(image.decode([0; 3]).unwrap(), expected);
        // What reads bytes, such as the packing of shards, gets a PNG.
        assert_eq!(mm_image::decode(&image.bytes().unwrap(), [0; 3]).unwrap(), expected);
    }
    let bytes = SampleImage::Memory(fs::read(goldens().join("ct.dcm")).unwrap());
    assert_eq!(bytes.decode([0; 3]).unwrap(), expected);
}

#[test]
fn a_folder_of_dicom_files_is_a_data_set_of_their_frames() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("p1/s1")).unwrap();
    fs::copy(goldens().join("ct.dcm"), path("p1/s1/IM0001")).unwrap();
    fs::copy(goldens().join("rle-frames.dcm"), path("p1/s1/cine.dcm")).unwrap();
    fs::copy(goldens().join("jpeg-ls.dcm"), path("p1/ls.dcm")).unwrap();
    fs::write(path("DICOMDIR"), [&[0; 128][..], b"DICM"].concat()).unwrap();
    fs::write(path("notes.txt"), "no image").unwrap();
    let open = |keys: &str| {
        let config = format!("kind = 'dicom'\npath = '{}'\n{keys}", folder.path().display());
        toml::from_str::<DatasetConfig>(&config).unwrap().open()
    };
    let keys = |dataset: &dyn Dataset| (0..dataset.len()).map(|index| dataset.key(index)).collect::<Vec<_>>();
    let all = open("").unwrap();
    let cine = ["p1/s1/cine.dcm#0", "p1/s1/cine.dcm#1", "p1/s1/cine.dcm#2"];
    assert_eq!(keys(&*all), [&["p1/ls.dcm", "p1/s1/IM0001"][..], &cine].concat());
    let error = all.sample(0).unwrap_err();
    assert_eq!(error.fault(), Fault::Image);
    assert!(error.to_string().contains("JPEG-LS Lossless"), "{error}");
    let frame = |number: usize| all.sample(number + 2).unwrap().image().unwrap().decode([0; 3]).unwrap();
    assert_ne!(frame(0), frame(1));
    assert_eq!(keys(&*open("frames = 'first'").unwrap())[2..], ["p1/s1/cine.dcm#0"]);
    assert_eq!(keys(&*open("frames = 'middle'").unwrap())[2..], ["p1/s1/cine.dcm#1"]);
    let lung = open("window = { center = -600, width = 1500 }").unwrap();
    let ct = |dataset: &dyn Dataset| dataset.sample(1).unwrap().image().unwrap().decode([0; 3]).unwrap();
    assert_eq!(ct(&*lung), ct(&*open("window = 1").unwrap()));
    assert_ne!(ct(&*lung), ct(&*all));
    let empty = tempfile::tempdir().unwrap();
    let config = format!("kind = 'dicom'\npath = '{}'", empty.path().display());
    let message = toml::from_str::<DatasetConfig>(&config).unwrap().open().err().unwrap().to_string();
    assert!(message.contains("the folder has no DICOM file"), "{message}");
}
