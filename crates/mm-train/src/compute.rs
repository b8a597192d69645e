//! The part of a machine that the last bits of a run depend on.

use crate::{Result, gather};
use mm_dist::ProcessGroup;
use serde::{Deserialize, Serialize};

/// The settings that the order of a process's floating-point sums depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compute {
    /// Threads of libtorch's kernels.
    pub(crate) threads: i32,
    /// The vector instructions of libtorch's kernels: "DEFAULT", "AVX2", "AVX512".
    pub(crate) cpu_capability: String,
}

impl Compute {
    /// The settings of all ranks.
    pub(crate) fn of_all(group: &ProcessGroup) -> Result<Vec<Self>> {
        let own = Self { threads: tch::get_num_threads(), cpu_capability: mm_sys::cpu_capability() };
        gather(group, std::slice::from_ref(&own))
    }
}

/// The warning for a run that continues with the settings `now` after `before`; none if they are equal, or if
/// the checkpoint does not have them.
pub(crate) fn difference(before: &[Compute], now: &[Compute]) -> Option<String> {
    let one = before.first().filter(|_| before != now)?;
    let mut ways = Vec::new();
    if before.len() != now.len() {
        ways.push(format!("start {}", counted(before.len(), "process", "processes")));
    }
    let threads = |all: &[Compute]| all.iter().map(|one| one.threads).collect::<Vec<_>>();
    if threads(before) != threads(now) {
        ways.push(if before.iter().all(|other| other.threads == one.threads) {
            format!("set OMP_NUM_THREADS={}", one.threads)
        } else {
            "set OMP_NUM_THREADS of each process".to_owned()
        });
    }
    if before.iter().chain(now).any(|other| other.cpu_capability != now[0].cpu_capability) {
        let capability = one.cpu_capability.to_lowercase();
        ways.push(format!("set ATEN_CPU_CAPABILITY={capability}, where the processor has it"));
    }
    Some(format!(
        "the checkpoint was computed by {}, and the run continues with {}: its numbers are those of the \
         unbroken run up to rounding, not bit for \
         bit; for the same bits {}",
        describe(before),
        describe(now),
        ways.join(" and ")
    ))
}

/// "1 process with 2 threads (AVX2)".
fn describe(all: &[Compute]) -> String {
    let kind = |one: &Compute| {
        format!("{} ({})", counted(one.threads as usize, "thread", "threads"), one.cpu_capability)
    };
    let kinds: Vec<String> = all.iter().map(kind).collect();
    let processes = counted(all.len(), "process", "processes");
    if kinds.iter().all(|kind| *kind == kinds[0]) {
        format!("{processes} with {}{}", kinds[0], if all.len() > 1 { " each" } else { "" })
    } else {
        format!("{processes} with {}", kinds.join(", "))
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(processes: &[(i32, &str)]) -> Vec<Compute> {
        let one = |&(threads, kind): &(i32, &str)| Compute { threads, cpu_capability: kind.to_owned() };
        processes.iter().map(one).collect()
    }

    #[test]
    fn what_differs_is_named_with_both_numbers_and_the_way_back() {
        let two = all(&[(2, "AVX2")]);
        assert_eq!(difference(&two, &two), None);
        assert_eq!(difference(&[], &two), None, "an older checkpoint does not say");
        let warning = difference(&two, &all(&[(4, "AVX2")])).unwrap();
        assert!(
            warning.contains(
                "1 process with 2 threads (AVX2), and the run continues with 1 process with 4 threads"
            ),
            "{warning}"
        );
        assert!(warning.ends_with("for the same bits set OMP_NUM_THREADS=2"), "{warning}");
        let warning = difference(&two, &all(&[(2, "AVX512")])).unwrap();
        assert!(
            warning.ends_with("for the same bits set ATEN_CPU_CAPABILITY=avx2, where the processor has it"),
            "{warning}"
        );
    }

    #[test]
    fn of_several_processes_each_one_counts() {
        let (pair, odd) = (all(&[(1, "AVX2"), (1, "AVX2")]), all(&[(1, "AVX2"), (3, "AVX2")]));
        let warning = difference(&pair, &odd).unwrap();
        assert!(warning.contains(
            "by 2 processes with 1 thread (AVX2) each, and the run continues with 2 \
        processes with 1 thread (AVX2), 3 threads"
        ));
        let warning = difference(&pair, &all(&[(2, "AVX2")])).unwrap();
        assert!(
            warning.ends_with("for the same bits start 2 processes and set OMP_NUM_THREADS=1"),
            "{warning}"
        );
        assert!(difference(&odd, &pair).unwrap().ends_with("set OMP_NUM_THREADS of each process"));
    }
}
