//! Processes as threads: each has its own sockets, groups and graphs.

use mm_dist::{Launch, ProcessGroup};
use std::net::TcpListener;
use std::time::Duration;
use tch::{Device, Tensor};

/// Runs `body` as each of `world` processes and returns their results in the order of the ranks.
pub fn as_processes<T: Send>(world: usize, body: impl Fn(&ProcessGroup) -> T + Sync) -> Vec<T> {
    let (body, port) = (&body, free_port());
    std::thread::scope(|scope| {
        let run = |rank| {
            let group =
                ProcessGroup::join(&launch(rank, world, port), Device::Cpu, Duration::from_secs(60)).unwrap();
            let result = body(&group);
            group.barrier().unwrap();
            result
        };
        let threads: Vec<_> = (0..world).map(|rank| scope.spawn(move || run(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Process `rank` of `world`, with a rendezvous at `port` of this machine.
pub fn launch(rank: usize, world: usize, port: u16) -> Launch {
    Launch { rank, world, local_rank: rank, port, prefix: "/test".to_owned(), ..Launch::alone() }
}

/// A port without a listener.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The largest difference of two tensors, relative to the largest entry.
#[allow(dead_code)] // not every test file compares tensors
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).double_value(&[])
}
