//! Collectives, the rendezvous, and the failure of another process.

mod common;

use common::{as_processes, free_port, launch};
use mm_dist::{Error, ProcessGroup, ReduceOp};
use std::time::Duration;
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn collectives_give_what_their_names_say() {
    for world in [2, 3] {
        let all: Vec<i64> = (0..world as i64).collect();
        as_processes(world, |group| {
            let rank = group.rank() as i64;
            let mut x = Tensor::full([2], rank, (Kind::Int64, Device::Cpu));
            group.all_reduce(&mut x, ReduceOp::Sum).unwrap();
            assert_eq!(x.int64_value(&[1]), all.iter().sum::<i64>());
            assert_eq!(
                group.reduce(&[rank as f64, -1.0], ReduceOp::Average).unwrap(),
                [(world - 1) as f64 / 2.0, -1.0]
            );
            assert_eq!(group.reduce(&[rank as f64], ReduceOp::Max).unwrap(), [(world - 1) as f64]);
            let mut from_last = Tensor::from(rank);
            group.broadcast_from(world - 1, &mut from_last).unwrap();
            assert_eq!(from_last.int64_value(&[]), world as i64 - 1);
            let gathered = group.all_gather(&Tensor::from_slice(&[rank])).unwrap();
            assert_eq!(Vec::<i64>::try_from(gathered).unwrap(), all);
            let before = group.ring_exchange(&Tensor::from(rank)).unwrap();
            assert_eq!(before.int64_value(&[]), (rank + world as i64 - 1) % world as i64);
        });
    }
}

#[test]
fn pieces_of_different_lengths_are_gathered_in_the_order_of_ranks() {
    as_processes(3, |group| {
        let rank = group.rank();
        let pieces = group.gather_bytes(&vec![rank as u8; 2 - rank]).unwrap();
        assert_eq!(pieces, [vec![0, 0], vec![1], vec![]]);
        let rows = group.gather_rows(&Tensor::full([rank as i64, 2], rank as f64, FLOAT)).unwrap();
        assert_eq!(Vec::<f32>::try_from(rows.reshape([-1])).unwrap(), [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(group.gather_rows(&Tensor::zeros([0, 2], FLOAT)).unwrap().size(), [0, 2]);
    });
}

#[test]
fn a_gathered_row_gets_the_sum_of_its_gradients_in_all_processes() {
    as_processes(2, |group| {
        let x = Tensor::ones([1, 2], FLOAT).set_requires_grad(true);
        let all = group.all_gather_with_gradient(&x).unwrap();
        let wanted = Tensor::from_slice2(&[[1f32, 2.0], [3.0, 4.0]]) * (1.0 + group.rank() as f64);
        (all * wanted).sum(Kind::Float).backward();
        let expected = [[3f32, 6.0], [9.0, 12.0]][group.rank()];
        assert_eq!(Vec::<f32>::try_from(x.grad().reshape([-1])).unwrap(), expected);

        let y = Tensor::from(group.rank() as f32 + 1.0).set_requires_grad(true);
        let sum = group.sum_with_gradient(&y);
        assert_eq!(sum.double_value(&[]), 3.0);
        (sum * (group.rank() as f64 + 1.0)).backward();
        assert_eq!(y.grad().double_value(&[]), 3.0);
    });
}

#[test]
fn a_graph_outlives_its_process_group() {
    let port = free_port();
    let grads: Vec<f64> = std::thread::scope(|scope| {
        let run = move |rank| {
            let x = Tensor::from_slice(&[2f32]).set_requires_grad(true);
            let group =
                ProcessGroup::join(&launch(rank, 2, port), Device::Cpu, Duration::from_secs(60)).unwrap();
            let y = group.all_gather_with_gradient(&x).unwrap();
            group.barrier().unwrap();
            drop(group);
            y.sum(Kind::Float).backward();
            x.grad().double_value(&[0])
        };
        let threads = [0, 1].map(|rank| scope.spawn(move || run(rank)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(grads, [2.0, 2.0]);
}

#[test]
fn different_configurations_are_named_by_all_processes() {
    let told = as_processes(3, |group| {
        let own = if group.rank() == 2 { "b" } else { "a" };
        group.assert_same_on_all_ranks("letters", "alike", |_, _| unreachable!("nothing differs")).unwrap();
        group
            .assert_same_on_all_ranks("letter", own, |main, own| format!("{own} instead of {main}"))
            .unwrap_err()
            .to_string()
    });
    assert!(
        told.iter().all(|told| told.contains("differ in their letter: rank 2 in b instead of a;")),
        "{told:?}"
    );
}

/// Joins as `rank` of `world` with a short timeout, which is enough for the others even on a busy machine.
fn join(rank: usize, world: usize, port: u16) -> mm_dist::Result<ProcessGroup> {
    ProcessGroup::join(&launch(rank, world, port), Device::Cpu, Duration::from_secs(5))
}

#[test]
fn a_missing_rank_is_named() {
    let port = free_port();
    let told: Vec<String> = std::thread::scope(|scope| {
        let threads = [0, 2].map(|rank| scope.spawn(move || join(rank, 4, port).unwrap_err().to_string()));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected = format!(
        "rendezvous at 127.0.0.1:{port} timed out after 5 s: ranks 1, 3 missing (2 of 4 joined); start every"
    );
    assert!(told[0].starts_with(&expected), "{told:?}");
}

#[test]
fn a_port_in_use_and_an_address_without_a_listener_are_different_errors() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let in_use = join(0, 2, port).unwrap_err().to_string();
    assert!(in_use.contains(&format!("port {port} is in use")), "{in_use}");
    let nobody = join(1, 2, free_port()).unwrap_err().to_string();
    assert!(nobody.contains("rank 1 cannot reach rank 0 at 127.0.0.1:"), "{nobody}");
}

#[test]
fn two_processes_of_one_rank_are_refused() {
    let port = free_port();
    let told: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let run = move |rank| join(rank, 3, port).map(|_| ()).map_err(|error| error.to_string());
        let threads = [0, 1, 1].map(|rank| scope.spawn(move || run(rank)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let twice = told.iter().filter(|told| matches!(told, Err(e) if e.contains("two processes have rank 1")));
    assert_eq!(twice.count(), 1, "{told:?}");
}

#[test]
fn the_failure_of_another_process_is_an_error_of_this_and_every_later_collective() {
    let port = free_port();
    let join =
        |rank| ProcessGroup::join(&launch(rank, 2, port), Device::Cpu, Duration::from_secs(60)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(join(1)));
        let group = join(0);
        let mut x = Tensor::from(1.0);
        let lost = group.all_reduce(&mut x, ReduceOp::Sum).unwrap_err();
        assert!(lost.is_lost(), "{lost}");
        assert!(group.check().is_ok());
        assert_eq!(group.sum_with_gradient(&Tensor::from(5.0)).double_value(&[]), 5.0);
        assert!(matches!(group.check(), Err(Error::Lost { .. })));
    });
}

#[test]
fn a_single_process_is_a_group_that_sends_nothing() {
    let group = ProcessGroup::alone();
    let x = Tensor::from_slice(&[1.0, 2.0]);
    assert_eq!(group.all_gather(&x).unwrap(), x);
    assert_eq!(group.ring_exchange(&x).unwrap(), x);
    assert_eq!(group.reduce(&[3.0], ReduceOp::Max).unwrap(), [3.0]);
    assert_eq!(group.gather_bytes(b"a").unwrap(), [b"a"]);
    group.barrier().unwrap();
    group.assert_same_on_all_ranks("letter", "x", |_, _| unreachable!("there is no other process")).unwrap();
}
