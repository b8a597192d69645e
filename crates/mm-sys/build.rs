//! Compiles the shim against the very libtorch that torch-sys links.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=shim");
    // torch-sys tells its dependants where its libtorch lives, however it was found.
    let lib = PathBuf::from(std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys exports its libtorch folder"));
    let include = lib.parent().expect("libtorch's lib folder has a parent").join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .pic(true)
        .warnings(false) // libtorch's headers are not ours to mend
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag("-fopenmp") // without it at::parallel_for is a plain loop
        .flag("-fno-math-errno") // or rounding calls a function for each element
        .opt_level(3)
        .files(["shim/shim.cpp", "shim/int8.cpp", "shim/graph.cpp"])
        .compile("mm_shim");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    link_openmp(&lib);
}

/// Links the OpenMP that libtorch brings: two in one process would each start threads for every core.
fn link_openmp(lib: &Path) {
    match lib.join("libgomp.so.1").exists() {
        true => println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1"),
        false => println!("cargo:rustc-link-lib=gomp"),
    }
}
