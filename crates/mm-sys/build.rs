//! Compiles the shim against the very libtorch that torch-sys links.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=shim");
    // torch-sys passes the location of its libtorch on to its dependents.
    let lib =
        PathBuf::from(std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys exports its libtorch folder"));
    let include = lib.parent().expect("libtorch's lib folder has a parent").join("include");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .pic(true)
        .warnings(false) // the headers of libtorch have warnings
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag("-fopenmp") // without it at::parallel_for is a plain loop
        .flag("-fno-math-errno") // or rounding calls a function for each element
        .opt_level(3)
        .define("USE_C10D_GLOO", None)
        .include("shim") // for gloo's declarations
        .files(
            ["shim", "int8", "conv", "winograd", "dropout", "generator", "graph", "c10d", "reducer"]
                .map(|name| format!("shim/{name}.cpp")),
        );
    enable_nccl(&lib, &mut build);
    build.compile("mm_shim");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    link_openmp(&lib);
}

/// Compiles the NCCL process group if this libtorch has it, without a feature flag.
fn enable_nccl(lib: &Path, build: &mut cc::Build) {
    println!("cargo:rerun-if-changed={}", lib.display()); // a missing file cannot be watched
    if !lib.join("libtorch_cuda.so").exists() {
        return;
    }
    // The wheels are side by side: torch/lib, nvidia/cu13/include, nvidia/nccl/include.
    let wheels = lib.ancestors().nth(2).expect("torch/lib lies in a folder of wheels").join("nvidia");
    let (cuda, nccl) = (wheels.join("cu13/include"), wheels.join("nccl/include"));
    let headers = ["cuda_runtime.h", "crt/host_config.h", "nv/target"].map(|header| cuda.join(header));
    if let Some(missing) = headers.iter().chain([&nccl.join("nccl.h")]).find(|header| !header.is_file()) {
        let missing = missing.display();
        println!(
            "cargo:warning=NCCL is left out: {missing} is missing; `cargo xtask setup --cuda` installs it"
        );
        return;
    }
    build.define("USE_C10D_NCCL", None).includes([cuda, nccl]);
    println!("cargo:rustc-link-lib=torch_cuda");
    println!("cargo:rustc-link-lib=c10_cuda");
}

/// Links the OpenMP of libtorch: two in one process would each start threads for every core.
fn link_openmp(lib: &Path) {
    match lib.join("libgomp.so.1").exists() {
        true => println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1"),
        false => println!("cargo:rustc-link-lib=gomp"),
    }
}
