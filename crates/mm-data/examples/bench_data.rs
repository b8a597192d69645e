//! Our side of `cargo xtask bench data`: what one process measures, as a line of JSON.
//!
//!     bench_data load SHARDS WORKERS       training batches of 224 px from the shards of a folder, one pass
//!     bench_data stream SHARDS WORKERS     the same, shards read as streams with a shuffle buffer of 1,000
//!     bench_data shapes SECONDS            scenes with all their texts, drawn at 64 px, on one thread
//!     bench_data shards OUT COUNT          writes shards of 100 small samples
//!     bench_data restore SHARDS            opens a run's data and goes to its middle

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mm_data::{
    Dataset, DatasetConfig, Error, Loader, LoaderConfig, Map, Position, Rank, Result, Sample, SampleRng,
};
use mm_image::{Augment, Normalize, RgbImage};

const BATCH_SIZE: usize = 64;
const SIZE: u32 = 224;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match measure(&words) {
        Ok(line) => {
            println!("{line}");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn measure(words: &[&str]) -> Result<String> {
    match *words {
        ["load", shards, workers] => load(shards, workers, ""),
        ["stream", shards, workers] => load(shards, workers, "streamed = true\nsamples = 4000"),
        ["shapes", seconds] => shapes(seconds),
        ["shards", out, count] => shards(Path::new(out), number(count)?),
        ["restore", shards] => restore(shards),
        _ => Err(Error::Setting("see the head of bench_data.rs for what can be asked".into())),
    }
}

fn open(shards: &str, keys: &str) -> Result<Arc<dyn Dataset>> {
    let text = format!("kind = 'webdataset'\nshards = '{shards}/*.tar'\n{keys}");
    let config: DatasetConfig = toml::from_str(&text).map_err(|error| Error::Setting(error.to_string()))?;
    Ok(Arc::from(config.open()?))
}

fn number(word: &str) -> Result<usize> {
    word.parse().map_err(|_| Error::Setting(format!("`{word}` is no number")))
}

fn map() -> Map<RgbImage> {
    let augment = Augment::default();
    Arc::new(move |sample: &Sample, rng: &mut SampleRng| {
        Ok(augment.apply(&sample.image()?.decode([255; 3])?, SIZE, rng))
    })
}

/// Batches as a model reads them, from the first one on: what the start of the process takes is not counted.
fn load(shards: &str, workers: &str, keys: &str) -> Result<String> {
    let source = open(shards, keys)?;
    let batches = source.len() / BATCH_SIZE;
    let config =
        LoaderConfig { batch_size: BATCH_SIZE, workers: number(workers)?, ..LoaderConfig::default() };
    let mut loader = Loader::new(source, config, Rank::default(), map(), Position::default())?;
    let plane = 3 * (SIZE * SIZE) as usize;
    let mut pixel_values = vec![0.0; BATCH_SIZE * plane]; // [B, 3, H, W]
    let (mut begun, mut samples) = (None, 0);
    for _ in 0..batches {
        let batch = loader.next_batch()?;
        for (image, out) in batch.items.iter().zip(pixel_values.chunks_exact_mut(plane)) {
            Normalize::CLIP.write(image, out);
        }
        match begun {
            None => begun = Some(Instant::now()),
            Some(_) => samples += batch.items.len(),
        }
    }
    let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    Ok(format!(r#"{{"samples": {samples}, "seconds": {seconds}, "peak_mb": {}}}"#, peak_mb()))
}

fn shapes(seconds: &str) -> Result<String> {
    let config: DatasetConfig =
        toml::from_str("kind = 'shapes'").map_err(|error| Error::Setting(error.to_string()))?;
    let (source, most) = (config.open()?, Duration::from_secs(number(seconds)? as u64));
    let (begun, mut samples) = (Instant::now(), 0);
    while begun.elapsed() < most {
        let sample = source.sample(samples % source.len())?;
        std::hint::black_box((sample.image()?.decode([255; 3])?, sample.captions, sample.questions));
        samples += 1;
    }
    Ok(format!(
        r#"{{"samples": {samples}, "seconds": {}, "peak_mb": {}}}"#,
        begun.elapsed().as_secs_f64(),
        peak_mb()
    ))
}

fn shards(out: &Path, count: usize) -> Result<String> {
    let begun = Instant::now();
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    for shard in 0..count {
        let path = out.join(format!("{shard:06}.tar"));
        let file = std::fs::File::create(&path).map_err(Error::io(&path))?;
        let mut builder = tar::Builder::new(std::io::BufWriter::new(file));
        for number in 0..100 {
            for (end, bytes) in [("jpg", &[0xff; 700][..]), ("txt", b"a caption")] {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                let name = format!("{:09}.{end}", shard * 100 + number);
                builder.append_data(&mut header, name, bytes).map_err(Error::io(&path))?;
            }
        }
        builder.finish().map_err(Error::io(&path))?;
    }
    let (samples, seconds) = (count * 100, begun.elapsed().as_secs_f64());
    Ok(format!(r#"{{"samples": {samples}, "seconds": {seconds}, "peak_mb": {}}}"#, peak_mb()))
}

fn restore(shards: &str) -> Result<String> {
    let begun = Instant::now();
    let source = open(shards, "")?;
    let samples = source.len();
    let config = LoaderConfig { batch_size: BATCH_SIZE, ..LoaderConfig::default() };
    let middle = Position { epoch: 3, index: samples / 2 / BATCH_SIZE * BATCH_SIZE, ..Position::default() };
    let map: Map<RgbImage> = Arc::new(|_, _| Ok(RgbImage::new(1, 1)));
    Loader::new(source, config, Rank::default(), map, middle)?.next_batch()?;
    Ok(format!(
        r#"{{"samples": {samples}, "seconds": {}, "peak_mb": {}}}"#,
        begun.elapsed().as_secs_f64(),
        peak_mb()
    ))
}

/// The most memory that this process held.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    peak.map_or(f64::NAN, |kilobytes: f64| kilobytes / 1024.0)
}
