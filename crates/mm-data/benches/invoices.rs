//! The time of a page of invoices: `cargo bench -p mm-data --features invoices --bench invoices`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mm_data::DatasetConfig;
use mm_data::invoices::InvoicesConfig;

fn invoices(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("invoices");
    group.throughput(Throughput::Elements(1));
    for (name, scan) in [("scanned", true), ("clean", false)] {
        let config = InvoicesConfig { scan, ..InvoicesConfig::default() };
        let set = DatasetConfig::Invoices(config).open().expect("a fine config");
        let mut index = 0;
        let mut next = || {
            index = (index + 1) % 1000;
            set.sample(black_box(index)).expect("a page")
        };
        group.bench_function(format!("sample, {name}"), |bench| bench.iter(&mut next));
        group.bench_function(format!("sample and pixels, {name}"), |bench| {
            bench.iter(|| {
                let sample = next();
                (sample.image().expect("an image").decode([255; 3]).expect("a drawing"), sample)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, invoices);
criterion_main!(benches);
