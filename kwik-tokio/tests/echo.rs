//! Bytes there and back, on streams of either side.

use kwik_tokio::{Dir, RecvStream, SendStream, Side, dial, listen};

use crate::common::{ANY_PORT, Ca, NAME, Pair, check, check_to_end, pair, pattern, spawn_echo, within};

const TEN_MB: u64 = 10_000_000;

async fn write_pattern(stream: &mut SendStream, len: u64) {
    let mut offset = 0;
    while offset < len {
        let end = len.min(offset + 123_457);
        stream.write_chunk(pattern(offset..end)).await.unwrap();
        offset = end;
    }
    stream.finish().unwrap();
}

#[tokio::test]
async fn bidirectional_stream_echoes_a_few_bytes() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        spawn_echo(server);
        let mut stream = client.open_stream().unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"hello");
        stream.write_all(b", again").await.unwrap();
        stream.finish().unwrap();
        assert_eq!(stream.read_to_end(7).await.unwrap(), b", again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bidirectional_stream_echoes_ten_megabytes() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        spawn_echo(server);
        let (mut send, mut recv) = client.open_stream().unwrap().split();
        let (_, end) = tokio::join!(write_pattern(&mut send, TEN_MB), check_to_end(&mut recv, 0));
        assert_eq!(end, TEN_MB);
    })
    .await;
}

async fn send_both_ways(pair: &Pair, len: u64) {
    let send = |stream: SendStream| async move { write_pattern(&mut { stream }, len).await };
    let receive = |stream: RecvStream| async move { assert_eq!(check_to_end(&mut { stream }, 0).await, len) };
    tokio::join!(
        send(pair.client.open_uni_stream().unwrap()),
        async { receive(pair.server.accept_uni_stream().await.unwrap()).await },
        async { receive(pair.client.accept_uni_stream().await.unwrap()).await },
        async { write_pattern(&mut pair.server.open_uni_stream_sync().await.unwrap(), len).await },
    );
}

#[tokio::test]
async fn unidirectional_streams_carry_a_few_bytes_both_ways() {
    within(async { send_both_ways(&pair().await, 5).await }).await;
}

#[tokio::test]
async fn unidirectional_streams_carry_ten_megabytes_both_ways() {
    within(async { send_both_ways(&pair().await, TEN_MB).await }).await;
}

#[tokio::test]
async fn stream_finished_without_a_byte_is_accepted_and_ends() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut sent = client.open_stream().unwrap();
        sent.finish().unwrap();
        let mut accepted = server.accept_stream().await.unwrap();
        assert_eq!(accepted.read_to_end(0).await.unwrap(), b"");
        assert_eq!(accepted.read(&mut [0; 1]).await.unwrap(), 0, "the end stays the end");
        accepted.finish().unwrap();
        assert_eq!(sent.read_to_end(0).await.unwrap(), b"");
    })
    .await;
}

#[tokio::test]
async fn stream_is_accepted_before_any_byte_is_written_on_it() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut opened = server.open_stream_sync().await.unwrap();
        let mut accepted = client.accept_stream().await.unwrap();
        assert_eq!(accepted.id(), opened.id());
        assert_eq!((accepted.id().initiator(), accepted.id().dir()), (Side::Server, Dir::Bi));
        accepted.write_all(b"the client speaks first").await.unwrap();
        accepted.finish().unwrap();
        assert_eq!(opened.read_to_end(100).await.unwrap(), b"the client speaks first");

        let mut opened = server.open_uni_stream().unwrap();
        let mut accepted = client.accept_uni_stream().await.unwrap();
        opened.write_all(b"then the server").await.unwrap();
        opened.finish().unwrap();
        assert_eq!(accepted.read_to_end(100).await.unwrap(), b"then the server");

        let opened = client.open_uni_stream().unwrap();
        let accepted = server.accept_uni_stream().await.unwrap();
        assert_eq!((accepted.id(), accepted.id().initiator()), (opened.id(), Side::Client));
    })
    .await;
}

#[tokio::test]
async fn server_that_speaks_first_reaches_a_client_that_says_nothing() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = server.open_stream().unwrap();
        stream.write_chunk(pattern(0..100_000)).await.unwrap();
        stream.finish().unwrap();
        let mut accepted = client.accept_stream().await.unwrap();
        check(0, &accepted.read_to_end(100_000).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn name_is_resolved_and_ipv6_is_served() {
    within(async {
        let ca = Ca::new();
        let listener = listen(("::1", 0), ca.server()).await.unwrap();
        let client = dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        let server = listener.accept().await.unwrap();
        assert_eq!(client.welcomed().await.unwrap(), server.id());
        assert!(server.remote_address().is_ipv6());

        // `localhost` may resolve to ::1 first, where nobody listens: the next address is tried.
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let limits = crate::common::limits(|limits| limits.dial_timeout = std::time::Duration::from_millis(500));
        let server = format!("{NAME}:{}", listener.local_addr().port());
        let client = dial(server, ca.client().limits(limits)).await.unwrap();
        assert_eq!(client.welcomed().await.unwrap(), listener.accept().await.unwrap().id());
    })
    .await;
}
