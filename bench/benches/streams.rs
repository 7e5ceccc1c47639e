//! How fast the tables of both ends open, serve and forget streams.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kwik_core::__test_exports::measured::Exchange;

const MESSAGE: [u8; 64] = [7; 64];

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("requests");
    for at_once in [1, 50] {
        group.throughput(Throughput::Elements(at_once as u64));
        group.bench_with_input(BenchmarkId::new("at once", at_once), &at_once, |bencher, at_once| {
            let mut exchange = Exchange::default();
            bencher.iter(|| assert_eq!(exchange.run(*at_once, &MESSAGE), *at_once));
        });
    }
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
