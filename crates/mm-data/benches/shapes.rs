//! The time of each step of a shapes scene: `cargo bench -p mm-data --bench shapes`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mm_data::DatasetConfig;
use mm_data::shapes::{Scene, ShapesConfig};

fn shapes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shapes");
    group.throughput(Throughput::Elements(1));
    let config = ShapesConfig::default();
    let scenes: Vec<Scene> = (0..1000).map(|index| config.scene(index)).collect();
    let mut index = 0;
    let mut next = || {
        index = (index + 1) % scenes.len();
        index
    };
    group.bench_function("scene", |bench| bench.iter(|| config.scene(black_box(next() as u64))));
    group.bench_function("captions", |bench| bench.iter(|| scenes[next()].captions()));
    group.bench_function("questions", |bench| bench.iter(|| scenes[next()].questions()));
    group.bench_function("negatives", |bench| bench.iter(|| scenes[next()].negatives()));
    group.bench_function("edits", |bench| bench.iter(|| scenes[next()].edits()));
    for size in [64, 224] {
        group.bench_function(format!("render {size}"), |bench| bench.iter(|| scenes[next()].render(size)));
        let source =
            DatasetConfig::Shapes(ShapesConfig { size, ..config.clone() }).open().expect("a fine config");
        group.bench_function(format!("sample and pixels {size}"), |bench| {
            bench.iter(|| {
                let sample = source.sample(next()).expect("a scene");
                (sample.image().expect("an image").decode([255; 3]).expect("a drawing"), sample)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, shapes);
criterion_main!(benches);
