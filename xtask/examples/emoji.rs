//! Writes the emoji set into a folder; `cargo xtask data emoji` runs it.
//!
//! It is an example and not a part of xtask because mm-data takes a while to compile and `cargo xtask setup`
//! must not wait for it.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(out) = std::env::args_os().nth(1) else {
        eprintln!("error: no folder given: emoji OUT");
        return ExitCode::from(2);
    };
    match mm_data::export_emoji(Path::new(&out)) {
        Ok(stats) => {
            let megabytes = stats.image_bytes as f64 / 1e6;
            println!(
                "{} pairs to train on, {} held out, {megabytes:.1} MB of pictures",
                stats.train, stats.held_out
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
