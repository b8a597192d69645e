//! Averaging of gradients: in every order, with parameters that no or only some processes use, and when a
//! process fails.

mod common;

use common::{as_processes, difference, free_port, launch};
use mm_dist::{GradientAverage, ProcessGroup};
use mm_testing::normal;
use std::time::Duration;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

fn store(group: &ProcessGroup, widths: &[i64]) -> VarStore {
    let vs = VarStore::new(Device::Cpu);
    for (index, width) in widths.iter().enumerate() {
        // The values of rank 0 are broadcast.
        let value = (1 + index) as f64 + 10.0 * group.rank() as f64;
        let _ = vs.root().var(&format!("v{index}"), &[*width], Init::Const(value));
    }
    vs
}

#[test]
fn variables_are_broadcast_from_rank_0() {
    as_processes(2, |group| {
        let vs = store(group, &[3, 5]);
        GradientAverage::new(group, &vs).unwrap();
        let values: Vec<f64> = ["v0", "v1"].map(|name| vs.variables()[name].max().double_value(&[])).into();
        assert_eq!(values, [1.0, 2.0]);
    });
}

#[test]
fn buckets_follow_the_order_of_gradients_and_all_are_averaged_in_each_step() {
    // Three variables of 16 MB: each fills a bucket of its own.
    let widths = [4 << 20, 100, 4 << 20, 4 << 20];
    as_processes(2, |group| {
        let vs = store(group, &widths);
        let mut average = GradientAverage::new(group, &vs).unwrap();
        for step in 0..3 {
            average.arm();
            let scale = (1 + group.rank()) as f64 * (1 + step) as f64;
            let mut variables: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
            variables.sort_by(|(a, _), (b, _)| a.cmp(b));
            let terms = variables
                .iter()
                .enumerate()
                .map(|(index, (_, v))| v.sum(Kind::Float) * (scale * (1 + index) as f64));
            terms.sum::<Tensor>().backward();
            average.finish().unwrap();
            for (index, (_, v)) in variables.iter().enumerate() {
                let expected = 1.5 * (1 + step) as f64 * (1 + index) as f64;
                assert_eq!(v.grad().max().double_value(&[]), expected);
                assert_eq!(v.grad().min().double_value(&[]), expected);
                let mut v = v.shallow_clone();
                mm_sys::clear_gradient(&mut v);
            }
        }
        assert!(average.overlap().sending > 0.0);
    });
}

#[test]
fn a_variable_used_by_some_is_averaged_and_one_used_by_none_has_no_gradient() {
    as_processes(2, |group| {
        let vs = store(group, &[2, 2, 2]);
        let mut average = GradientAverage::new(group, &vs).unwrap();
        for _ in 0..2 {
            let v = |index: usize| vs.variables()[&format!("v{index}")].shallow_clone();
            average.arm();
            let own = v(group.rank());
            (own * 4.0).sum(Kind::Float).backward();
            average.finish().unwrap();
            for (index, expected) in [(0, Some(2.0)), (1, Some(2.0)), (2, None)] {
                let gradient = v(index).grad();
                assert_eq!(gradient.defined().then(|| gradient.double_value(&[1])), expected, "v{index}");
                mm_sys::clear_gradient(&mut v(index));
            }
        }
    });
}

#[test]
fn gradients_accumulated_without_communication_are_averaged_with_the_last_pass() {
    as_processes(2, |group| {
        let vs = store(group, &[6]);
        let mut average = GradientAverage::new(group, &vs).unwrap();
        let v = vs.variables()["v0"].shallow_clone();
        let pass =
            |number: u64| (&v * normal(number + 10 * group.rank() as u64, &[6])).sum(Kind::Float).backward();
        pass(1);
        pass(2);
        average.arm();
        pass(3);
        average.finish().unwrap();
        let expected: Tensor =
            [1, 2, 3, 11, 12, 13].map(|seed| normal(seed, &[6])).into_iter().sum::<Tensor>() / 2.0;
        assert!(difference(&v.grad(), &expected) < 1e-5);
    });
}

#[test]
fn different_models_are_named_before_gradients_are_exchanged() {
    let told = as_processes(2, |group| {
        let vs = store(group, &[3, 4 + group.rank() as i64]);
        GradientAverage::new(group, &vs).unwrap_err().to_string()
    });
    assert!(
        told.iter()
            .all(|told| told
                .contains("differ in their model: rank 1 in v1 [5] trained instead of v1 [4] trained")),
        "{told:?}"
    );
}

#[test]
fn a_process_that_fails_in_a_step_is_an_error_and_not_a_panic() {
    let port = free_port();
    let join =
        |rank| ProcessGroup::join(&launch(rank, 2, port), Device::Cpu, Duration::from_secs(60)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let group = join(1);
            GradientAverage::new(&group, &store(&group, &[3])).unwrap();
        });
        let group = join(0);
        let vs = store(&group, &[3]);
        let mut average = GradientAverage::new(&group, &vs).unwrap();
        average.arm();
        vs.variables()["v0"].sum(Kind::Float).backward();
        assert!(average.finish().unwrap_err().is_lost());
    });
}
