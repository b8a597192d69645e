//! `xtask setup` with a pip that fails in every way a user's can, and with one that works.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use crate::machine::{Machine, python};

/// A pip that installs the files of torch's wheel that setup looks at.
const GOOD_PIP: &str = r#"
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/torch/lib" "$2/torch/include" "$2/nvidia/cu13/lib" "$2/torchgen"
for file in c10 torch torch_cpu torch_cuda torch_python; do echo wheel > "$2/torch/lib/lib$file.so"; done"#;

fn setup(machine: &Machine, args: &[&str], variables: &[(&str, &Path)]) -> Output {
    machine.xtask(&[&["setup"], args].concat(), variables)
}

fn failure(machine: &Machine, variables: &[(&str, &Path)]) -> String {
    machine.error(&["setup", "--cpu"], variables, &[".libtorch", ".libtorch.partial"])
}

#[test]
fn a_cpu_setup_is_complete_and_a_second_one_changes_nothing() {
    let machine = Machine::new(GOOD_PIP);
    assert!(setup(&machine, &["--cpu"], &[]).status.success());
    let torch = machine.path("work/.libtorch/torch");
    assert_eq!(fs::read_to_string(torch.join("build-version")).unwrap(), "2.13.0");
    assert_eq!(fs::read_to_string(torch.join("lib/libtorch.so")).unwrap(), "INPUT(libtorch_cpu.so)\n");
    assert!(
        !torch.join("lib/libtorch_cuda.so").exists() && !machine.path("work/.libtorch/torchgen").exists()
    );
    assert!(!machine.path("work/.libtorch.partial").exists());

    machine.program("python3", "exit 9");
    let again = setup(&machine, &["--cpu"], &[]);
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("is present"));
}

#[test]
fn cuda_keeps_its_libraries_and_replaces_a_cpu_setup() {
    let machine = Machine::new(GOOD_PIP);
    assert!(setup(&machine, &["--cpu"], &[]).status.success());
    assert!(setup(&machine, &["--cuda"], &[]).status.success());
    let lib = machine.path("work/.libtorch/torch/lib");
    assert!(lib.join("libtorch_cuda.so").exists());
    assert_eq!(fs::read_to_string(lib.join("libtorch.so")).unwrap(), "wheel\n");
    assert!(!machine.path("work/.libtorch.old").exists());
}

#[test]
fn an_incomplete_and_an_outdated_folder_are_replaced() {
    let machine = Machine::new(GOOD_PIP);
    fs::create_dir_all(machine.path("work/.libtorch.partial/torch/lib")).unwrap();
    fs::create_dir_all(machine.path("work/.libtorch/torch/lib")).unwrap();
    fs::write(machine.path("work/.libtorch/torch/build-version"), "2.7.1").unwrap();
    assert!(setup(&machine, &["--cpu"], &[]).status.success());
    assert_eq!(fs::read_to_string(machine.path("work/.libtorch/torch/build-version")).unwrap(), "2.13.0");
}

#[test]
fn the_error_without_python_says_to_install_it() {
    let mut machine = Machine::new("");
    fs::remove_file(machine.path("bin/python3")).unwrap();
    symlink("/bin/sh", machine.path("bin/sh")).unwrap();
    machine.system_path = "";
    assert!(failure(&machine, &[]).contains("python3 is not on the PATH"));
}

#[test]
fn the_error_without_pip_says_to_install_it() {
    let machine = Machine::new("");
    machine.program("python3", &python("3.12", "echo No module named pip >&2; exit 1", ""));
    assert!(failure(&machine, &[]).contains("has no pip"));
}

#[test]
fn an_old_python_and_one_without_a_wheel_are_named() {
    let machine = Machine::new("");
    machine.program("python3", &python("3.8", "exit 0", ""));
    assert!(failure(&machine, &[]).contains("python3 is 3.8"));
    let machine = Machine::with_failing_pip("ERROR: No matching distribution found for torch==2.13.0");
    assert!(failure(&machine, &[]).contains("finds no torch 2.13.0 wheel"));
}

#[test]
fn no_network_is_not_taken_for_a_missing_wheel() {
    let machine = Machine::with_failing_pip(
        "WARNING: Retrying after connection broken by NewConnectionError: \
         Temporary failure in name resolution\n\
         ERROR: No matching distribution found for torch==2.13.0",
    );
    assert!(failure(&machine, &[]).contains("check the network"));
}

#[test]
fn a_small_disk_is_found_before_and_a_full_one_after_the_download() {
    let machine = Machine::new(GOOD_PIP);
    machine.program("df", "echo header; echo '/dev/x 9 9 102400 99% /'");
    assert!(failure(&machine, &[]).contains("100 MB free"));
    let machine = Machine::with_failing_pip(
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    );
    assert!(failure(&machine, &[]).contains("the disk is full"));
}

#[test]
fn a_pip_that_fails_leaves_no_folder_and_its_reason_is_shown() {
    let machine = Machine::new(&format!(
        "{GOOD_PIP}\nrm \"$2/torch/lib/libc10.so\"; echo 'ERROR: hashes differ' >&2; exit 1"
    ));
    assert!(failure(&machine, &[]).contains("hashes differ"));
}

#[test]
fn a_libtorch_named_by_the_user_is_used_and_its_version_checked() {
    let machine = Machine::new("exit 9");
    let own = machine.path("own");
    let error = failure(&machine, &[("LIBTORCH", &own)]);
    assert!(error.contains("no lib/libtorch_cpu.so"), "{error}");
    fs::create_dir_all(own.join("lib")).unwrap();
    fs::write(own.join("lib/libtorch_cpu.so"), "").unwrap();
    fs::write(own.join("build-version"), "2.6.0+cpu").unwrap();
    let error = failure(&machine, &[("LIBTORCH", &own)]);
    assert!(error.contains("2.6.0") && error.contains("2.13.0"), "{error}");
    fs::write(own.join("build-version"), "2.13.0+cpu").unwrap();
    let output = setup(&machine, &[], &[("LIBTORCH", &own)]);
    assert!(output.status.success() && !machine.path("work/.libtorch").exists());
}

#[test]
fn the_torch_of_a_python_is_used_and_its_version_checked() {
    let yes = Path::new("1");
    let machine = Machine::new("");
    machine.program("python3", "echo ModuleNotFoundError >&2; exit 1");
    assert!(failure(&machine, &[("LIBTORCH_USE_PYTORCH", yes)]).contains("cannot import torch"));
    machine.program("python3", "echo 2.9.0+cpu; echo /somewhere/torch");
    assert!(failure(&machine, &[("LIBTORCH_USE_PYTORCH", yes)]).contains("2.9.0"));
    machine.program("python3", "echo 2.13.0+cpu; echo /somewhere/torch");
    assert!(setup(&machine, &[], &[("LIBTORCH_USE_PYTORCH", yes)]).status.success());
}
