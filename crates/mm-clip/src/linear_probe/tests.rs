//! Linear probes against scikit-learn, and their errors.

use super::*;
use std::collections::HashMap;
use std::path::Path;
use tch::Tensor;

const TIGHT: ProbeConfig = ProbeConfig { max_iterations: 10_000, tolerance: 1e-8 };

/// The output of `xtask/goldens/probe.py`: the data, and all tensors by name.
fn golden(name: &str) -> (LabelledFeatures, HashMap<String, Tensor>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/probe").join(name);
    let tensors: HashMap<_, _> = Tensor::read_safetensors(file).unwrap().into_iter().collect();
    let classes = numbers(&tensors["classes"]);
    let count = classes.iter().max().unwrap() + 1;
    (LabelledFeatures::new(&tensors["features"], &classes, count).unwrap(), tensors)
}

fn numbers(classes: &Tensor) -> Vec<usize> {
    Vec::<i64>::try_from(classes).unwrap().into_iter().map(|class| class as usize).collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Points of `classes` clouds around the corners of a simplex, the same at each call, without a generator.
fn clouds(samples: usize, classes: usize, noise: f64) -> LabelledFeatures {
    let truth: Vec<usize> = (0..samples).map(|row| row % classes).collect();
    let values: Vec<f64> = (0..samples * classes)
        .map(|index| {
            let random = mm_core::seed::derive(5, "clouds", index as u64) as f64 / u64::MAX as f64 - 0.5;
            f64::from(truth[index / classes] == index % classes) + noise * random
        })
        .collect();
    let features = Tensor::from_slice(&values).view([samples as i64, classes as i64]);
    LabelledFeatures::new(&features, &truth, classes).unwrap()
}

#[test]
fn probes_equal_those_of_scikit_learn() {
    for name in ["four_classes.safetensors", "two_classes.safetensors"] {
        let (data, expected) = golden(name);
        for index in 0..2 {
            let peer = |what: &str| &expected[&format!("{index}.{what}")];
            let probe = LinearProbe::fit(&data, peer("c").double_value(&[0]), &TIGHT).unwrap();
            assert!(probe.converged, "{name}: {probe:?}");
            let (mut weights, mut bias) = (probe.weights(), probe.bias());
            if data.class_count() == 2 {
                (weights, bias) = (
                    weights.diff(1, 0, None::<Tensor>, None::<Tensor>),
                    bias.diff(1, 0, None::<Tensor>, None::<Tensor>),
                );
            }
            assert!(largest_difference(&weights, peer("coef")) < 1e-4, "{name}");
            assert!(largest_difference(&bias, peer("intercept")) < 1e-4, "{name}");
            let objective = peer("objective").double_value(&[0]);
            assert!(
                (probe.objective / objective - 1.0).abs() < 1e-9,
                "{name}: {} is not {objective}",
                probe.objective
            );
            assert_eq!(probe.predict(&expected["features"]).unwrap(), numbers(peer("predicted")), "{name}");
        }
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let (data, _) = golden("four_classes.safetensors");
    let objective = Objective::new(&data, 0.3);
    let values: Vec<f64> = (0..28).map(|i| f64::from(i).sin()).collect();
    let parameters = Tensor::from_slice(&values).view([4, 7]);
    let (_, gradient) = objective.at(&parameters).unwrap();
    for index in 0..28 {
        let value = |by: f64| {
            let mut moved = values.clone();
            moved[index] += by;
            objective.at(&Tensor::from_slice(&moved).view([4, 7])).unwrap().0
        };
        let difference = (value(1e-5) - value(-1e-5)) / 2e-5;
        let gradient = gradient.view(-1).double_value(&[index as i64]);
        assert!((gradient - difference).abs() < 1e-8, "element {index}: {gradient} is not {difference}");
    }
}

#[test]
fn a_probe_ends_in_the_same_place_wherever_it_starts() {
    let data = clouds(60, 3, 2.0);
    let from_zero = LinearProbe::fit(&data, 1.0, &TIGHT).unwrap();
    let other = LinearProbe::fit(&data, 1e-3, &TIGHT).unwrap();
    let from_other = LinearProbe::fit_from(Some(&other), &data, 1.0, &TIGHT).unwrap();
    assert!(largest_difference(&from_zero.parameters, &from_other.parameters) < 1e-6);
    assert!(largest_difference(&from_zero.parameters, &other.parameters) > 0.1);
}

#[test]
fn a_split_takes_a_tenth_of_each_class_and_follows_from_the_seed() {
    let truth: Vec<usize> = (0..100).map(|row| usize::from(row >= 70)).chain([2, 2, 3]).collect();
    let rows = Tensor::arange(103, (Kind::Double, Device::Cpu)).view([-1, 1]);
    let data = LabelledFeatures::new(&rows, &truth, 4).unwrap();
    let (train, validation) = data.split(1).unwrap();
    assert_eq!(validation.counts(), [7, 3, 1, 0]);
    assert_eq!(train.counts(), [63, 27, 1, 1]);
    let taken = |data: &LabelledFeatures| Vec::<f64>::try_from(data.features().view(-1)).unwrap();
    let mut all = [taken(&train), taken(&validation)].concat();
    all.sort_by(f64::total_cmp);
    assert_eq!(all, taken(&data), "each row is on one side");
    assert_eq!(taken(&data.split(1).unwrap().1), taken(&validation));
    assert_ne!(taken(&data.split(2).unwrap().1), taken(&validation));
    assert!(clouds(3, 3, 0.1).split(1).unwrap_err().to_string().contains("give C"));
}

#[test]
fn a_sweep_finds_a_c_that_generalises_and_trains_on_both_sets() {
    let (train, validation) = clouds(200, 4, 3.0).split(0).unwrap();
    let (probe, sweep) = sweep_c(&train, &validation, &ProbeConfig::default()).unwrap();
    assert_eq!(sweep.tried.len(), 15);
    assert!(sweep.tried.windows(2).all(|pair| pair[0].c < pair[1].c));
    assert!(
        sweep
            .tried
            .iter()
            .all(|tried| tried.validation_accuracy <= sweep.best.validation_accuracy && tried.converged)
    );
    let both = train.with(&validation).unwrap();
    let again = LinearProbe::fit(&both, sweep.best.c, &TIGHT).unwrap();
    assert!((probe.objective / again.objective - 1.0).abs() < 1e-6);
    let (same, same_sweep) = sweep_c(&train, &validation, &ProbeConfig::default()).unwrap();
    assert_eq!((same.parameters == probe.parameters, same_sweep), (true, sweep));
}

#[test]
fn iterations_that_run_out_are_told() {
    let probe =
        LinearProbe::fit(&clouds(60, 3, 2.0), 10.0, &ProbeConfig { max_iterations: 2, ..TIGHT }).unwrap();
    assert_eq!((probe.iterations, probe.converged), (2, false));
}

#[test]
fn what_no_probe_can_be_trained_on_is_refused_in_words() {
    let rows = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).view([4, 1]);
    let refusal = |rows: &Tensor, classes: &[usize], count| {
        LabelledFeatures::new(rows, classes, count).unwrap_err().to_string()
    };
    assert!(refusal(&rows, &[0, 1, 0], 2).contains("[4, 1] with 3 classes"));
    assert!(refusal(&rows.view([2, 2, 1]), &[0, 1], 2).contains("[2, 2, 1]"));
    assert!(refusal(&rows.narrow(0, 0, 0), &[], 2).contains("[0, 1] with 0"));
    assert!(refusal(&rows, &[0, 0, 0, 0], 1).contains("at least two classes"));
    assert!(refusal(&rows, &[0, 1, 2, 1], 2).contains("class 2 among 2"));
    assert!(
        refusal(&(&rows / (&rows - 3.0)), &[0, 1, 0, 1], 2).contains("row 2 of the features is not finite")
    );

    let data = LabelledFeatures::new(&rows, &[0, 1, 0, 1], 2).unwrap();
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(LinearProbe::fit(&data, c, &TIGHT).unwrap_err().to_string().contains(&format!("C is {c}")));
    }
    let lacking = LabelledFeatures::new(&rows, &[0, 1, 0, 1], 3).unwrap();
    assert!(
        LinearProbe::fit(&lacking, 1.0, &TIGHT).unwrap_err().to_string().contains("class 2 has no sample")
    );
    let probe = LinearProbe::fit(&data, 1.0, &TIGHT).unwrap();
    assert!(probe.predict(&rows.view([2, 2])).unwrap_err().to_string().contains("[2, 2]"));
    assert!(probe.evaluate(&lacking).unwrap_err().to_string().contains("3 classes"));
    assert!(sweep_c(&data, &lacking, &TIGHT).unwrap_err().to_string().contains("validation has 3 classes"));
}
