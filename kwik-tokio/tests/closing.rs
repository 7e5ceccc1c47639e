//! What both sides hear of streams when a session closes, in every order and at every size: who has all, or knows that the
//! peer has, hears of success; who lost something, of that.

use std::time::Duration;

use kwik_tokio::{
    ClientSession, Limits, ReadError, RecvStream, SendStream, ServerSendStream, ServerSession, SessionError, StreamId,
    Undelivered, WriteError,
};

use tokio::sync::Barrier;

use crate::common::{Pair, check_to_end, limits, pair_with, pattern, within};

const SIZES: [u64; 4] = [5, 3_000, 200_000, 10_000_000];

/// One side of a session.
enum End {
    Client(ClientSession),
    Server(ServerSession),
}

enum Writer {
    Client(SendStream),
    Server(ServerSendStream),
}

impl Writer {
    fn stream(&mut self) -> &mut SendStream {
        match self {
            Self::Client(stream) => stream,
            Self::Server(stream) => stream,
        }
    }

    /// Writes all, and ends the stream.
    async fn fill(&mut self, size: u64) -> StreamId {
        let stream = self.stream();
        stream.write_chunk(pattern(0..size)).await.unwrap();
        stream.finish().unwrap();
        stream.id()
    }
}

impl End {
    fn open(&self) -> Writer {
        match self {
            Self::Client(session) => Writer::Client(session.open_uni_stream().unwrap()),
            Self::Server(session) => Writer::Server(session.open_uni_stream().unwrap()),
        }
    }

    async fn accept(&self) -> RecvStream {
        match self {
            Self::Client(session) => session.accept_uni_stream().await.unwrap(),
            Self::Server(session) => session.accept_uni_stream().await.unwrap(),
        }
    }

    async fn close(&self) -> Result<(), Undelivered> {
        match self {
            Self::Client(session) => session.close(7, "enough").await,
            Self::Server(session) => session.close(7, "enough").await,
        }
    }

    async fn closed(&self) -> SessionError {
        match self {
            Self::Client(session) => session.closed().await,
            Self::Server(session) => session.closed().await,
        }
    }
}

/// The end that writes and the one that reads, both ways around.
async fn both_ways(limits: &Limits) -> [(End, End, kwik_tokio::Listener); 2] {
    let mut ways = Vec::new();
    for turned in [false, true] {
        let Pair { client, server, listener } = pair_with(limits.clone()).await;
        client.welcomed().await.unwrap();
        let (client, server) = (End::Client(client), End::Server(server));
        ways.push(if turned { (server, client, listener) } else { (client, server, listener) });
    }
    ways.try_into().ok().expect("two")
}

fn by_peer(cut_short: bool) -> SessionError {
    SessionError::ClosedByPeer { code: 7, reason: "enough".to_owned(), cut_short }
}

#[tokio::test]
async fn who_closes_after_the_end_delivers_all_and_hears_so() {
    within(async {
        for size in SIZES {
            for (waits, drops) in [(false, false), (true, false), (false, true)] {
                for (here, there, _listener) in both_ways(&Limits::default()).await {
                    let writing = async {
                        let mut stream = here.open();
                        stream.fill(size).await;
                        if waits {
                            stream.stream().finished().await.unwrap();
                        }
                        let kept = (!drops).then_some(stream);
                        here.close().await.unwrap();
                        if let Some(mut stream) = kept {
                            stream.stream().finished().await.unwrap();
                        }
                    };
                    let reading = async {
                        let mut stream = there.accept().await;
                        assert_eq!(check_to_end(&mut stream, 0).await, size);
                        assert_eq!(there.closed().await, by_peer(false));
                    };
                    tokio::join!(writing, reading);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn bytes_that_came_before_the_close_are_read_after_it_to_their_end() {
    within(async {
        for size in [5, 3_000, 200_000] {
            for (here, there, _listener) in both_ways(&Limits::default()).await {
                let mut stream = here.open();
                stream.fill(size).await;
                let mut read = there.accept().await;
                here.close().await.unwrap();
                assert_eq!(there.closed().await, by_peer(false));
                assert_eq!(check_to_end(&mut read, 0).await, size);
                assert_eq!(read.read_chunk(1, true).await.unwrap(), None, "the end again");
            }
        }
    })
    .await;
}

/// A reader that has all and leaves must have said so.
#[tokio::test]
async fn reader_that_closes_at_the_end_leaves_its_writer_certain() {
    within(async {
        for size in SIZES {
            for (here, there, _listener) in both_ways(&Limits::default()).await {
                let writing = async {
                    let mut stream = here.open();
                    stream.fill(size).await;
                    stream.stream().finished().await.unwrap();
                    assert_eq!(here.closed().await, by_peer(false));
                    here.close().await.unwrap();
                };
                let reading = async {
                    let mut stream = there.accept().await;
                    assert_eq!(check_to_end(&mut stream, 0).await, size);
                    there.close().await.unwrap();
                };
                tokio::join!(writing, reading);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn both_close_and_both_have_all() {
    within(async {
        for size in SIZES {
            for (here, there, _listener) in both_ways(&Limits::default()).await {
                // Who closes while the other still writes cuts it short.
                let written = Barrier::new(2);
                let talk = async |own: End, size: u64| {
                    let (mut out, mut into) = (own.open(), own.accept().await);
                    let reading = tokio::spawn(async move { check_to_end(&mut into, 0).await });
                    out.fill(size).await;
                    written.wait().await;
                    own.close().await.unwrap();
                    reading.await.unwrap()
                };
                // One has more to say than the other.
                let (more, less) = tokio::join!(talk(here, size), talk(there, size / 2 + 1));
                assert_eq!((more, less), (size / 2 + 1, size));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn reader_that_leaves_in_the_middle_leaves_its_writer_with_an_error() {
    within(async {
        for (here, there, _listener) in both_ways(&Limits::default()).await {
            let mut stream = here.open();
            let writing = async {
                let written = stream.stream().write_chunk(pattern(0..10_000_000)).await;
                assert!(matches!(written.unwrap_err(), WriteError::Session(_)));
            };
            let reading = async {
                let mut stream = there.accept().await;
                stream.read_exact(&mut [0; 5]).await.unwrap();
                there.close().await.unwrap();
                stream.read_to_end(usize::MAX).await.unwrap_err();
            };
            tokio::join!(writing, reading);
            assert!(matches!(stream.stream().finished().await.unwrap_err(), WriteError::Session(_)));
            // Nobody finished it.
            here.close().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_runs_out_of_time_hears_what_is_missing_and_so_does_its_peer() {
    let limits = limits(|limits| {
        limits.drain_timeout = Duration::from_millis(200);
        limits.send_buffer_stream_bytes = 16 << 20;
    });
    within(async {
        for (here, there, _listener) in both_ways(&limits).await {
            let mut whole = here.open();
            whole.fill(100).await;
            let mut stream = here.open();
            let id = stream.fill(10_000_000).await;
            let (mut first, mut second) = (there.accept().await, there.accept().await);
            assert_eq!(here.close().await.unwrap_err(), Undelivered { streams: vec![id] });
            whole.stream().finished().await.unwrap();
            assert!(matches!(stream.stream().finished().await.unwrap_err(), WriteError::Session(_)));
            assert_eq!(there.closed().await, by_peer(true));
            assert!(by_peer(true).to_string().contains("before all"), "{}", by_peer(true));
            assert_eq!(check_to_end(&mut first, 0).await, 100);
            let end = loop {
                match second.read_chunk(usize::MAX, true).await {
                    Ok(chunk) => assert!(chunk.is_some(), "a part was told to be the whole"),
                    Err(error) => break error,
                }
            };
            assert_eq!(end, ReadError::Session(by_peer(true)));
        }
    })
    .await;
}
