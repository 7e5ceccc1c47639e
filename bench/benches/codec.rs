//! How fast frames are written and read.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kwik_core::__test_exports::measured::{decode_carrier, decode_control, encode_carrier, encode_control};

const STREAMS: u64 = 1000;
const PACKETS: u64 = 1000;
const PAYLOAD: [u8; 1400] = [7; 1400];
/// What one datagram brings of a carrier.
const CHUNK_BYTES: usize = 1400;

fn control(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("control plane");
    group.throughput(Throughput::Elements(3 * STREAMS));
    group.bench_function("encode", |bencher| bencher.iter(|| encode_control(black_box(STREAMS))));
    let encoded = encode_control(STREAMS);
    group.bench_function("decode", |bencher| bencher.iter(|| decode_control(black_box(encoded.clone()))));
    group.finish();
}

fn carrier(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("carrier");
    group.throughput(Throughput::Bytes(PACKETS * PAYLOAD.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| encode_carrier(black_box(PACKETS), &PAYLOAD)));
    let encoded = encode_carrier(PACKETS, &PAYLOAD);
    group.bench_function("decode", |bencher| bencher.iter(|| decode_carrier(black_box(encoded.clone()), CHUNK_BYTES)));
    group.finish();
}

criterion_group!(benches, control, carrier);
criterion_main!(benches);
