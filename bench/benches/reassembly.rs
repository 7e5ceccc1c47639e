//! How fast the bytes of a stream are put together.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kwik_core::__test_exports::measured::reassemble;

const BYTES: usize = 4 << 20;
/// What one datagram brings of a stream.
const PIECE_BYTES: usize = 1400;

fn writers(criterion: &mut Criterion) {
    let data = Bytes::from(vec![7; BYTES]);
    let mut group = criterion.benchmark_group("reassembly");
    group.throughput(Throughput::Bytes(BYTES as u64));
    for writers in [1, 2, 8] {
        group.bench_with_input(BenchmarkId::new("writers", writers), &writers, |bencher, writers| {
            bencher.iter(|| reassemble(black_box(&data), *writers, PIECE_BYTES));
        });
    }
    group.finish();
}

criterion_group!(benches, writers);
criterion_main!(benches);
