//! `xtask data easy-vqa` with a pip that fails, or that downloads another file.

use std::fs;

use crate::machine::Machine;

fn failure(machine: &Machine) -> String {
    machine.error(&["data", "easy-vqa"], &[], &["data/easy-vqa", "data/easy-vqa.partial"])
}

#[test]
fn a_failed_download_has_its_own_error_and_leaves_nothing() {
    for (said, expected) in [
        ("WARNING: NewConnectionError: Temporary failure in name resolution", "check the network"),
        ("ERROR: No matching distribution found", "finds no easy-vqa 1.0 wheel"),
        ("ERROR: hashes differ", "run `cargo xtask data easy-vqa` again"),
    ] {
        let error = failure(&Machine::with_failing_pip(said));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_wheel_with_other_bytes_is_refused() {
    let machine =
        Machine::new("while [ $1 != --dest ]; do shift; done; echo x > $2/easy_vqa-1.0-py3-none-any.whl");
    assert!(failure(&machine).contains("SHA-256"));
}

#[test]
fn a_folder_with_other_files_is_kept() {
    let machine = Machine::new("exit 9");
    fs::create_dir_all(machine.path("work/data/easy-vqa")).unwrap();
    let output = machine.xtask(&["data", "easy-vqa"], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("easy-vqa exists and its train is not that of"), "{said}");
}
