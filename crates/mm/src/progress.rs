//! Progress bars.

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use mm_train::Progress;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Without a terminal, long work prints a line this often.
pub const LINE_EVERY: Duration = Duration::from_secs(15);

/// A bar over `total` of `unit`, with rate and remaining time; hidden where standard error is no terminal.
pub fn bar(total: u64, unit: &str) -> ProgressBar {
    let template =
        format!("{{bar:32.cyan/black.bright}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is valid").progress_chars("━━─");
    ProgressBar::new(total).with_style(style)
}

/// A bar for each kind of work, or a line now and then where there is no terminal.
#[derive(Default)]
pub struct Bars(Mutex<Option<Work>>);

/// The work in progress.
struct Work {
    name: String,
    bar: ProgressBar,
    last_line: Instant,
}

impl Progress for Bars {
    fn report(&self, work: &str, done: u64, total: u64) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.name != work) {
            *current = Some(Work { name: work.to_owned(), bar: bar(total, work), last_line: Instant::now() });
        }
        let Some(work) = current.as_mut() else { return };
        work.bar.set_position(done);
        if !std::io::stderr().is_terminal() && work.last_line.elapsed() > LINE_EVERY {
            output::note(format_args!("{done}/{total} {}", work.name));
            work.last_line = Instant::now();
        }
        if done >= total {
            work.bar.finish_and_clear();
            *current = None;
        }
    }
}
