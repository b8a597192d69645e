//! Exit codes of ranks, and which rank caused a failure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::PoisonError;

use anyhow::Result;

use super::Rank;
use crate::terminal::note;
use crate::workspace::Ended;

/// The exit code of an `mm` that failed only because another rank had ended (`EX_TEMPFAIL` of sysexits.h).
const FOLLOWED: u8 = 75;
/// The exit code of `mm` after Ctrl-C, and of a program that Ctrl-C killed, as shells report it.
const INTERRUPTED: u8 = 130;

/// The end of one rank.
pub struct End {
    pub status: ExitStatus,
    /// 1 for the rank that ended first.
    pub order: usize,
    /// False where the launcher ended it.
    pub by_itself: bool,
}

impl End {
    /// The exit code as shells report it: 128 plus the signal for a program that was killed.
    pub fn code(&self) -> u8 {
        let code = self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal));
        code.map_or(1, |code| code.clamp(0, 255) as u8)
    }

    fn describe(&self) -> String {
        match self.status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => format!("exit code {}", self.code()),
        }
    }
}

/// Whether the other ranks cannot finish after this exit code. After Ctrl-C they can: each saves and ends.
pub fn breaks_the_group(code: u8) -> bool {
    !matches!(code, 0 | INTERRUPTED)
}

/// Prints the error of the first rank that failed for a reason of its own, and the exit codes of the others.
///
/// # Errors
/// [`Ended`] with the exit code of that rank, or with 130 after Ctrl-C.
pub fn outcome(ranks: &[Rank], interrupted: bool) -> Result<()> {
    let mut ends: Vec<_> = ranks.iter().filter_map(|rank| Some((rank, rank.end.as_ref()?))).collect();
    ends.retain(|(_, end)| end.by_itself);
    ends.sort_by_key(|(_, end)| end.order);
    let first = |wanted: &dyn Fn(u8) -> bool| ends.iter().find(|(_, end)| wanted(end.code()));
    let cause = first(&|code| ![0, FOLLOWED, INTERRUPTED].contains(&code));
    if cause.is_none() && (interrupted || first(&|code| code == INTERRUPTED).is_some()) {
        return Err(Ended(INTERRUPTED).into());
    }
    let Some((rank, end)) = cause.or_else(|| first(&|code| code == FOLLOWED)) else { return Ok(()) };
    note(format_args!("error: rank {} failed ({}){}", rank.number, end.describe(), reason(rank, end)));
    let others = ranks.iter().filter(|other| other.number != rank.number).map(|other| match &other.end {
        Some(end) => format!("rank {} {}", other.number, end.describe()),
        None => format!("rank {} cannot be ended", other.number),
    });
    let others: Vec<_> = others.collect();
    if !others.is_empty() {
        note(format_args!("the others: {}", others.join(", ")));
    }
    Err(Ended(end.code()).into())
}

fn reason(rank: &Rank, end: &End) -> String {
    let last = rank.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
    match (last.error(), last.message()) {
        (None, _) if end.status.signal() == Some(9) => {
            ": killed by the system, most often because memory ran out (see `dmesg`), or by another program"
                .into()
        }
        (_, Some(message)) => format!(": {message}"),
        _ => String::new(),
    }
}
