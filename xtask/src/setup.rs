//! `cargo xtask setup`: installs libtorch into `.libtorch/`.
//!
//! The libraries come from PyTorch's own wheel, in pip's layout, so that the wheel's RPATH finds the two
//! small CUDA libraries that `libtorch_cpu.so` needs even without a GPU. The work is done in
//! `.libtorch.partial`, which is renamed at the end: an incomplete folder is never used.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::atomic_dir::{Lock, remove, replace, require_space};
use crate::libtorch::{self, Choice, Libtorch, VERSION};
use crate::pip::{Pip, Purpose};
use crate::workspace::Workspace;

/// The packages that libtorch needs without a GPU beside torch itself, in the versions that torch's wheel
/// requires.
const CPU_EXTRAS: [&str; 2] = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];
/// The packages that compiling against NCCL's process group needs beside torch and its dependencies: headers
/// that CUDA's own headers include.
const CUDA_EXTRAS: [&str; 2] = ["nvidia-cuda-crt==13.0.88", "nvidia-cuda-cccl==13.0.85"];
/// Disk space for the wheels and their unpacked files, in MB.
const CPU_SPACE: u64 = 3_000;
const CUDA_SPACE: u64 = 12_000;
/// Not needed on a CPU, and two thirds of the wheel.
const GPU_LIBRARIES: [&str; 4] = ["libtorch_cuda", "libc10_cuda", "libtorch_nvshmem", "libcaffe2_nvrtc"];
const PYTHON_LIBRARIES: [&str; 2] = ["libtorch_python", "libshm"];

/// Options of `setup`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask setup\n  cargo xtask setup --cuda\n  \
                  cargo xtask setup --python python3.12")]
pub struct Args {
    /// Keep the CUDA libraries; the default on a machine with an NVIDIA GPU
    #[arg(long, conflicts_with = "cpu")]
    cuda: bool,
    /// Leave out the CUDA libraries on a machine with a GPU
    #[arg(long)]
    cpu: bool,
    /// The Python whose pip downloads libtorch (3.10 or newer); not used at run time
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let cuda = args.cuda || (!args.cpu && has_gpu());
    match locate(workspace)? {
        Some(found) if !found.ours => {
            println!("libtorch {VERSION} is used from {}; .libtorch is not needed", found.folder.display());
        }
        Some(found) if found.has_cuda() || !args.cuda => {
            let kind = if found.has_cuda() { "CUDA" } else { "CPU" };
            println!("libtorch {VERSION} ({kind}) is present in .libtorch");
            if cuda && !found.has_cuda() {
                println!("this machine has an NVIDIA GPU: `cargo xtask setup --cuda` adds its libraries");
            }
        }
        _ => {
            install(workspace, &args.python, cuda)?;
        }
    }
    Ok(())
}

/// The libtorch to build on, installed first where it is missing.
pub fn ensure(workspace: &Workspace) -> Result<Libtorch> {
    if let Some(found) = locate(workspace)? {
        return Ok(found);
    }
    eprintln!("libtorch {VERSION} is not installed: running `cargo xtask setup` first");
    install(workspace, Path::new("python3"), has_gpu())
}

fn locate(workspace: &Workspace) -> Result<Option<Libtorch>> {
    libtorch::locate(&workspace.path(".libtorch/torch"), &Choice::from_env())
}

fn install(workspace: &Workspace, python: &Path, cuda: bool) -> Result<Libtorch> {
    if !cfg!(target_os = "linux") {
        bail!(
            "setup installs on Linux only: install libtorch {VERSION} by hand and set LIBTORCH to its folder"
        );
    }
    let start = Instant::now();
    let target = workspace.path(".libtorch");
    let done = Libtorch { folder: target.join("torch"), ours: true };

    let lock = Lock::take(&target)?;
    if lock.waited && libtorch::is_complete(&done.folder) && (done.has_cuda() || !cuda) {
        return Ok(done);
    }

    let purpose = Purpose {
        what: "libtorch",
        wheel: format!("torch {VERSION}"),
        again: "cargo xtask setup",
        otherwise: format!(", or set LIBTORCH to a libtorch {VERSION}"),
    };
    let pip = Pip::find(python, purpose)?;
    require_space(&workspace.path(""), "libtorch", if cuda { CUDA_SPACE } else { CPU_SPACE })?;
    let partial = workspace.path(".libtorch.partial");
    remove(&partial)?;
    let torch = format!("torch=={VERSION}");
    let extras = if cuda { CUDA_EXTRAS } else { CPU_EXTRAS };
    let packages: Vec<&str> = [torch.as_str()].into_iter().chain(extras).collect();
    eprintln!("downloading {} with {}'s pip", packages.join(", "), python.display());
    let installed = pip.install(&partial, &packages, cuda).and_then(|()| slim(&partial, cuda));
    if let Err(error) = installed {
        remove(&partial)?;
        return Err(error);
    }
    if !libtorch::is_complete(&partial.join("torch")) {
        remove(&partial)?;
        bail!(
            "the torch {VERSION} wheel has no lib/libtorch_cpu.so: \
             set LIBTORCH to a libtorch {VERSION} instead"
        );
    }
    replace(&target, &partial)?;
    let kind = if cuda { "CUDA" } else { "CPU" };
    eprintln!("libtorch {VERSION} ({kind}) is in .libtorch, after {:.0} s", start.elapsed().as_secs_f64());
    Ok(done)
}

/// Removes everything from the wheels that a C++ program neither links nor loads.
fn slim(partial: &Path, cuda: bool) -> Result<()> {
    let torch = partial.join("torch");
    keep(partial, |name| name == "torch" || name == "nvidia")?;
    keep(&torch, |name| ["lib", "include", "share"].contains(&name))?;
    let lib = torch.join("lib");
    let is_one_of = |names: &[&str], file: &str| names.iter().any(|name| file.starts_with(name));
    keep(&lib, |file| !is_one_of(&PYTHON_LIBRARIES, file) && (cuda || !is_one_of(&GPU_LIBRARIES, file)))?;
    if !cuda {
        keep(&partial.join("nvidia/cu13"), |name| name == "lib")?;
        // The wheel's own libtorch.so is an empty library that links the CUDA ones.
        write(&lib.join("libtorch.so"), "INPUT(libtorch_cpu.so)\n")?;
    }
    write(&torch.join("build-version"), VERSION) // torch-sys checks it
}

fn keep(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if !wanted(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    // Removed first: a file that another process has mapped must not change.
    remove(path)?;
    let written = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn has_gpu() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_is_reduced_to_the_files_that_cpu_programs_link() {
        let wheel = tempfile::tempdir().unwrap();
        let files = [
            "torch/__init__.py",
            "torch/lib/libtorch.so",
            "torch/lib/libtorch_cpu.so",
            "torch/lib/libc10.so",
        ]
        .into_iter()
        .chain([
            "torch/lib/libtorch_cuda_linalg.so",
            "torch/lib/libtorch_python.so",
            "torch/include/torch/x.h",
        ])
        .chain(["nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/include/cuda.h", "bin/torchrun"]);
        for file in files {
            let path = wheel.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "from the wheel").unwrap();
        }
        slim(wheel.path(), false).unwrap();
        assert!(libtorch::is_complete(&wheel.path().join("torch")));
        assert!(wheel.path().join("nvidia/cu13/lib/libcudart.so.13").exists());
        assert_eq!(
            fs::read_to_string(wheel.path().join("torch/lib/libtorch.so")).unwrap(),
            "INPUT(libtorch_cpu.so)\n"
        );
        for removed in
            ["torch/__init__.py", "torch/lib/libtorch_cuda_linalg.so", "torch/lib/libtorch_python.so", "bin"]
        {
            assert!(!wheel.path().join(removed).exists(), "{removed} is still there");
        }
    }
}
