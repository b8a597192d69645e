//! Benchmark of all-reduce: `bench_all_reduce MB`, run as each process of a launch. Rank 0 prints one line of
//! JSON, as `xtask/peers/bench_dist.py` does for torch.distributed.

use mm_dist::{Launch, ProcessGroup, ReduceOp};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const ITERATIONS: usize = 10;
const WARMUP: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let megabytes: i64 = std::env::args().nth(1).ok_or("usage: bench_all_reduce MB")?.parse()?;
    let group = ProcessGroup::join(&Launch::from_env()?, Device::Cpu, Duration::from_secs(60))?;
    let mut x = Tensor::ones([megabytes * 250_000], (Kind::Float, Device::Cpu));
    let mut seconds = Vec::new();
    for _ in 0..WARMUP + ITERATIONS {
        group.barrier()?;
        let started = Instant::now();
        group.all_reduce(&mut x, ReduceOp::Sum)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    if group.is_main() {
        println!("{{\"seconds\": {:?}}}", &seconds[WARMUP..]);
    }
    group.barrier()?;
    Ok(())
}
