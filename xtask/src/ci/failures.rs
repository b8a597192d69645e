//! The failed tests of `cargo test --no-fail-fast`, read from its output, for a list at the end: thousands of
//! lines may follow a failure.

use std::io::{self, IsTerminal, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result};

/// The failed tests of a run.
#[derive(Debug, Default)]
pub struct Failures {
    /// The failed tests of each test binary, in order.
    tests: Vec<Vec<String>>,
    /// The names of the list that is being read.
    names: Vec<String>,
    in_list: bool,
    /// The binaries that failed, in order.
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    /// The options that select it, such as `-p mm-core --lib`.
    options: String,
    /// How it ended, where it crashed.
    crash: Option<String>,
}

/// Runs a `cargo test`, passes its output on unchanged, and returns its exit status and the failures.
///
/// # Errors
/// It cannot be started, or its output cannot be passed on.
pub fn watch(cargo: &mut Command) -> Result<(ExitStatus, Failures)> {
    if io::stderr().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        cargo.env("CARGO_TERM_COLOR", "always"); // off by default for a pipe
    }
    let mut child =
        cargo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start cargo")?;
    let (stdout, stderr) =
        (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
    let (mut results, mut messages) = (Failures::default(), Failures::default());
    let passed_on = thread::scope(|scope| {
        let results = scope.spawn(|| pass_on(stdout, io::stdout(), |line| results.read_result(line)));
        let messages = pass_on(stderr, io::stderr(), |line| messages.read_message(line));
        results.join().expect("reading does not panic").and(messages)
    });
    let status = child.wait().context("cannot wait for cargo")?;
    passed_on.context("cannot pass on what cargo prints")?;
    Ok((status, Failures { targets: messages.targets, ..results }))
}

/// Copies `from` to `to` as it arrives, and calls `read` with each line, without colours.
fn pass_on(mut from: impl Read, mut to: impl Write, mut read: impl FnMut(&str)) -> io::Result<()> {
    let (mut buffer, mut line) = ([0; 1 << 14], Vec::new());
    loop {
        let count = from.read(&mut buffer)?;
        to.write_all(&buffer[..count])?;
        to.flush()?;
        for &byte in &buffer[..count] {
            if byte == b'\n' {
                read(&String::from_utf8_lossy(&without_colours(&line)));
                line.clear();
            } else {
                line.push(byte);
            }
        }
        if count == 0 {
            return Ok(());
        }
    }
}

/// Removes escape sequences: `ESC [ ... letter`, and `ESC ( B`.
fn without_colours(line: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(line.len());
    let mut bytes = line.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            0x1b if bytes.next() == Some(&b'[') => drop(bytes.find(|end| (0x40..=0x7e).contains(*end))),
            0x1b => drop(bytes.next()),
            b'\r' => {}
            _ => kept.push(byte),
        }
    }
    kept
}

impl Failures {
    /// Reads a line of standard output, where tests print their results.
    fn read_result(&mut self, line: &str) {
        if line == "failures:" {
            self.in_list = true;
            self.names.clear();
        } else if line.starts_with("test result: FAILED") {
            self.tests.push(std::mem::take(&mut self.names));
            self.in_list = false;
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| self.in_list) {
            self.names.push(name.to_owned());
        } else if !line.is_empty() {
            self.in_list = false; // the output of a failed test has the same heading
        }
    }

    /// Reads a line of standard error, where cargo names its targets.
    fn read_message(&mut self, line: &str) {
        if let Some((_, options)) = line.split_once("test failed, to rerun pass `") {
            self.targets.push(Target { options: options.trim_end_matches('`').to_owned(), crash: None });
        } else if let Some((_, how)) = line.rsplit_once("` (")
            && line.contains("process didn't exit successfully")
            && let Some(target) = self.targets.last_mut()
        {
            target.crash = Some(how.trim_end_matches(')').to_owned());
        }
    }

    /// One line for each failed test, with the options of `cargo test` that run it, and for each target that
    /// crashed.
    pub fn lines(&self) -> Vec<String> {
        let is_doc =
            |tests: &&Vec<String>| tests.iter().all(|name| name.contains(" - ") && name.contains("(line "));
        let (of_docs, of_binaries): (Vec<_>, Vec<_>) = self.tests.iter().partition(is_doc);
        let (crashed, failed): (Vec<_>, Vec<_>) =
            self.targets.iter().partition(|target| target.crash.is_some());
        let failed: Vec<&Target> =
            failed.into_iter().filter(|target| !target.options.ends_with("--doc")).collect();
        let mut lines = Vec::new();
        if failed.len() == of_binaries.len() {
            for (target, tests) in failed.iter().zip(&of_binaries) {
                lines.extend(tests.iter().map(|test| format!("{} {test}", target.options)));
            }
        } else {
            lines.extend(failed.iter().map(|target| target.options.clone()));
            lines.extend(of_binaries.into_iter().flatten().cloned());
        }
        lines.extend(of_docs.into_iter().flatten().map(|test| format!("--doc {test}")));
        for target in crashed {
            lines.push(format!("{}: {}", target.options, target.crash.as_deref().unwrap_or_default()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard output of tests, recorded from cargo 1.95.
    const RESULTS: &str = "
running 4 tests
test tests::good ... ok
test tests::must_panic - should panic ... FAILED
test tests::bad ... \x1b[31mFAILED\x1b(B\x1b[m

failures:

---- tests::must_panic stdout ----
note: test did not panic as expected at alpha/src/lib.rs:19:32
---- tests::bad stdout ----
failures:
    not_a_test

thread 'tests::bad' (18089) panicked at alpha/src/lib.rs:16:67:
x

failures:
    tests::bad
    tests::must_panic

test result: \x1b[31mFAILED\x1b(B\x1b[m. 1 passed; 2 failed; 0 ignored; 0 measured; finished in 0.13s


running 1 test
test tests::good ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s


running 2 tests
test fine ... ok

running 1 test
test fails ... FAILED

failures:

---- fails stdout ----

thread 'fails' (18122) panicked at beta/tests/fails.rs:1:22:
assertion `left == right` failed

failures:
    fails

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.14s


running 2 tests
test alpha/src/lib.rs - two (line 1) ... FAILED

failures:

---- alpha/src/lib.rs - two (line 1) stdout ----
Test executable failed (exit status: 101).

failures:
    alpha/src/lib.rs - two (line 1)

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s


running 1 test
test alpha/src/lib.rs - two (line 9) - compile fail ... FAILED

failures:

---- alpha/src/lib.rs - two (line 9) stdout ----
Test compiled successfully, but it's marked `compile_fail`.

failures:
    alpha/src/lib.rs - two (line 9)

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.17s
";

    /// The standard error of the same run.
    const MESSAGES: &str = "    Finished `release` profile [optimized] target(s) in 1.03s
     Running unittests src/lib.rs (target/release/deps/alpha-e998c900766b4d55)
\x1b[1m\x1b[31merror\x1b[0m: test failed, to rerun pass `-p alpha --lib`
     Running unittests src/lib.rs (target/release/deps/beta-8097df5598bfe8ab)
     Running tests/cli.rs (target/release/deps/cli-aed0ef0dda1a9449)
error: test failed, to rerun pass `-p beta --test cli`

Caused by:
  process didn't exit successfully: `/target/release/deps/cli-aed0` (signal: 6, SIGABRT: process abort signal)
     Running tests/fails.rs (target/release/deps/fails-a790e0d83f16d0d6)
error: test failed, to rerun pass `-p beta --test fails`
   Doc-tests alpha
error: doctest failed, to rerun pass `-p alpha --doc`
error: 4 targets failed:
    `-p alpha --lib`
    `-p beta --test cli`
    `-p beta --test fails`
    `-p alpha --doc`
";

    fn read(results: &str, messages: &str) -> (Failures, Vec<u8>) {
        let (mut failures, mut copied) = (Failures::default(), Vec::new());
        pass_on(results.as_bytes(), &mut copied, |line| failures.read_result(line)).unwrap();
        pass_on(messages.as_bytes(), &mut copied, |line| failures.read_message(line)).unwrap();
        (failures, copied)
    }

    #[test]
    fn each_failed_test_is_listed_with_its_binary_and_the_output_is_unchanged() {
        let (failures, copied) = read(RESULTS, MESSAGES);
        assert_eq!(
            failures.lines(),
            [
                "-p alpha --lib tests::bad",
                "-p alpha --lib tests::must_panic",
                "-p beta --test fails fails",
                "--doc alpha/src/lib.rs - two (line 1)",
                "--doc alpha/src/lib.rs - two (line 9)",
                "-p beta --test cli: signal: 6, SIGABRT: process abort signal",
            ]
        );
        assert_eq!(copied, [RESULTS, MESSAGES].concat().as_bytes());
    }

    #[test]
    fn a_run_without_failures_has_none_whatever_the_names_of_its_tests() {
        let results = "running 1 test\ntest failures::FAILED ... ok\n\ntest result: ok. 1 passed; 0 failed\n";
        let (failures, _) = read(results, "   Doc-tests alpha\n");
        assert_eq!(failures.lines(), [""; 0]);
    }

    #[test]
    fn failures_without_a_known_binary_are_listed_too() {
        let results = "failures:\n    a\n\ntest result: FAILED.\nfailures:\n    b\n\ntest result: FAILED.\n";
        let (failures, _) = read(results, "error: test failed, to rerun pass `--lib`\n");
        assert_eq!(failures.lines(), ["--lib", "a", "b"]);
    }
}
