//! The allocator of the process, libtorch's tensors included.

use std::ffi::c_char;
use tikv_jemallocator::Jemalloc;

/// A training step allocates and frees thousands of tensors and oneDNN's descriptions of them. glibc gives
/// large ones back to the system, which clears their pages at every step, and merges and splits small ones: a
/// fifth of the time of training a small model. jemalloc keeps both by size.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A C string that jemalloc reads at its start.
#[repr(transparent)]
struct Options(*const c_char);

// SAFETY: the string is constant.
unsafe impl Sync for Options {}

/// jemalloc keeps freed memory. By default it gives it back within 10 s, and what is larger than 8 MiB at
/// once: the decoder of Stable Diffusion, which then waits for pages, takes 1.7 times as long.
// SAFETY: the only definition of this name, of the type that jemalloc declares: `const char *`.
#[used]
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: Options = Options(c"oversize_threshold:0,dirty_decay_ms:-1".as_ptr());

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};
    use tikv_jemallocator::usable_size;

    #[test]
    fn the_memory_of_tensors_is_jemallocs() {
        let tensor = Tensor::zeros([1000], (Kind::Float, Device::Cpu));
        // SAFETY: reads the size of a live allocation, if it is jemalloc's, by its address.
        let usable = unsafe { usable_size(tensor.data_ptr()) };
        assert!((4000..8000).contains(&usable), "{usable}");
    }
}
