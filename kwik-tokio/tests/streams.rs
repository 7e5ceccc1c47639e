//! How streams end, and the other ways to read and write them.

use std::io::ErrorKind;

use bytes::Bytes;
use kwik_tokio::{Chunk, ErrorCode, ReadError, ReadExactError, ReadToEndError, SessionError, WriteError};
use tokio::io;

use crate::common::{Pair, check, check_to_end, pair, pattern, spawn_echo, within};

#[tokio::test]
async fn reset_reaches_the_reader_with_its_code() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_stream().unwrap();
        let mut accepted = server.accept_stream().await.unwrap();
        stream.write_all(b"half a mess").await.unwrap();
        stream.reset(7).unwrap();
        let error = loop {
            match accepted.read(&mut [0; 64]).await {
                Ok(len) => assert!(len > 0, "a reset is not an end"),
                Err(error) => break error,
            }
        };
        assert_eq!(error, ReadError::Reset(ErrorCode::Application(7)));
        assert!(error.to_string().contains('7'), "{error}");
        assert_eq!(stream.write(b"age").await.unwrap_err(), WriteError::Reset);
        assert_eq!(stream.finish().unwrap_err(), WriteError::Reset);
        assert_eq!(stream.finished().await.unwrap_err(), WriteError::Reset);

        accepted.write_all(b"the other direction goes on").await.unwrap();
        accepted.finish().unwrap();
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"the other direction goes on");
    })
    .await;
}

#[tokio::test]
async fn stop_reaches_the_writer_with_its_code() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_stream().unwrap();
        let mut accepted = server.accept_stream().await.unwrap();
        accepted.stop(9).unwrap();
        assert_eq!(accepted.read(&mut [0; 1]).await.unwrap_err(), ReadError::Stopped);
        assert_eq!(stream.stopped().await.unwrap(), Some(ErrorCode::Application(9)));
        assert_eq!(stream.write(b"unwanted").await.unwrap_err(), WriteError::Stopped(ErrorCode::Application(9)));
        assert_eq!(stream.finish().unwrap_err(), WriteError::Stopped(ErrorCode::Application(9)));
        assert_eq!(stream.finished().await.unwrap_err(), WriteError::Stopped(ErrorCode::Application(9)));

        accepted.write_all(b"the other direction goes on").await.unwrap();
        drop(accepted);
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"the other direction goes on");
    })
    .await;
}

#[tokio::test]
async fn stop_wakes_a_writer_that_waits() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_uni_stream().unwrap();
        let writing = tokio::spawn(async move { stream.write_chunk(pattern(0..10_000_000)).await });
        let mut accepted = server.accept_uni_stream().await.unwrap();
        accepted.read_exact(&mut [0; 1000]).await.unwrap();
        accepted.stop(3).unwrap();
        assert_eq!(writing.await.unwrap().unwrap_err(), WriteError::Stopped(ErrorCode::Application(3)));
    })
    .await;
}

#[tokio::test]
async fn finished_direction_leaves_the_other_open() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_stream().unwrap();
        stream.write_all(b"request").await.unwrap();
        stream.finish().unwrap();
        stream.finish().unwrap();
        assert_eq!(stream.write(b"!").await.unwrap_err(), WriteError::Finished);
        let mut accepted = server.accept_stream().await.unwrap();
        assert_eq!(accepted.read_to_end(100).await.unwrap(), b"request");
        stream.finished().await.unwrap();
        assert_eq!(stream.stopped().await.unwrap(), None);

        accepted.write_chunk(pattern(0..300_000)).await.unwrap();
        accepted.finish().unwrap();
        check(0, &stream.read_to_end(300_000).await.unwrap());
        accepted.finished().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn dropped_halves_finish_and_stop() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let (mut send, recv) = client.open_stream().unwrap().split();
        let mut accepted = server.accept_stream().await.unwrap();
        send.write_all(b"last words").await.unwrap();
        drop(send);
        assert_eq!(accepted.read_to_end(100).await.unwrap(), b"last words");
        drop(recv);
        assert_eq!(accepted.stopped().await.unwrap(), Some(ErrorCode::Application(0)));
    })
    .await;
}

#[tokio::test]
async fn reads_with_a_bound_say_what_was_wrong() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        spawn_echo(server);
        let open = async || {
            let mut stream = client.open_stream_sync().await.unwrap();
            stream.write_all(b"12345").await.unwrap();
            stream.finish().unwrap();
            stream
        };
        let error = open().await.read_exact(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error, ReadExactError::FinishedEarly { read: 5, wanted: 9 });
        let error = open().await.read_to_end(4).await.unwrap_err();
        assert_eq!(error, ReadToEndError::TooLong { limit: 4 });
        assert_eq!(open().await.read_to_end(5).await.unwrap(), b"12345");
    })
    .await;
}

#[tokio::test]
async fn unordered_reads_cover_the_stream_and_exclude_ordered_ones() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        spawn_echo(server);
        let (mut send, mut recv) = client.open_stream().unwrap().split();
        let writing = async {
            send.write_chunk(pattern(0..1_000_000)).await.unwrap();
            send.finish().unwrap();
        };
        let reading = async {
            let mut seen = 0;
            while let Some(chunk) = recv.read_chunk(10_000, false).await.unwrap() {
                check(chunk.offset.0, &chunk.data);
                seen += chunk.data.len();
                if seen < 1_000_000 {
                    let error = recv.read_chunk(1, true).await.unwrap_err();
                    assert_eq!(error, ReadError::IllegalOrderedRead);
                }
            }
            seen
        };
        assert_eq!(tokio::join!(writing, reading).1, 1_000_000);
    })
    .await;
}

#[tokio::test]
async fn streams_are_tokio_readers_and_writers() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let served = tokio::spawn(async move {
            let (mut send, mut recv) = server.accept_stream().await.unwrap().split();
            let copied = io::copy(&mut recv, &mut send).await.unwrap();
            io::AsyncWriteExt::shutdown(&mut send).await.unwrap();
            send.finished().await.unwrap();
            copied
        });
        let (mut send, mut recv) = client.open_stream().unwrap().split();
        let sent = pattern(0..2_000_000);
        let writing = async {
            io::AsyncWriteExt::write_all(&mut send, &sent).await.unwrap();
            io::AsyncWriteExt::flush(&mut send).await.unwrap();
            io::AsyncWriteExt::shutdown(&mut send).await.unwrap();
        };
        let reading = async {
            let mut received = Vec::new();
            io::AsyncReadExt::read_to_end(&mut recv, &mut received).await.unwrap();
            received
        };
        let ((), received) = tokio::join!(writing, reading);
        assert!(received == sent, "the echo differs");
        assert_eq!(served.await.unwrap(), 2_000_000);
    })
    .await;
}

#[tokio::test]
async fn whole_streams_are_tokio_readers_and_writers_too() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut near = client.open_stream().unwrap();
        io::AsyncWriteExt::write_all(&mut near, b"ping").await.unwrap();
        let mut far = server.accept_stream().await.unwrap();
        let mut ping = [0; 4];
        io::AsyncReadExt::read_exact(&mut far, &mut ping).await.unwrap();
        assert_eq!(&ping, b"ping");
        far.reset(5).unwrap();
        let error = io::AsyncReadExt::read(&mut near, &mut ping).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(error.to_string().contains("application code 5"), "{error}");
        far.stop(6).unwrap();
        near.stopped().await.unwrap();
        let error = io::AsyncWriteExt::write(&mut near, b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert!(error.to_string().contains("application code 6"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn commands_after_the_end_say_how_the_stream_ended() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let stopped = WriteError::Stopped(ErrorCode::Application(4));
        for end in [WriteError::Finished, WriteError::Reset, stopped.clone()] {
            let mut stream = client.open_stream().unwrap();
            stream.write_all(b"12").await.unwrap();
            let mut accepted = server.accept_stream().await.unwrap();
            let read = match end {
                WriteError::Finished => {
                    stream.finish().unwrap();
                    assert_eq!(accepted.read_to_end(2).await.unwrap(), b"12");
                    stream.finished().await.unwrap();
                    stream.finish().unwrap();
                    ReadError::Finished
                }
                WriteError::Reset => {
                    stream.reset(5).unwrap();
                    while accepted.read(&mut [0; 2]).await.is_ok() {}
                    ReadError::Reset(ErrorCode::Application(5))
                }
                _ => {
                    accepted.stop(4).unwrap();
                    assert!(stream.stopped().await.unwrap().is_some());
                    ReadError::Stopped
                }
            };
            for _ in 0..2 {
                let is_reset = stream.reset(1);
                assert_eq!(is_reset, if end == stopped { Ok(()) } else { Err(end.clone()) });
                assert_eq!(stream.set_priority(1), Err(end.clone()));
                assert_eq!(accepted.stop(1), Err(read.clone()));
            }
        }
        let mut stream = client.open_stream().unwrap();
        let _ = client.close(6, "").await;
        let ended = SessionError::LocallyClosed;
        assert_eq!(stream.reset(1), Err(WriteError::Session(ended.clone())));
        assert_eq!(stream.set_priority(1), Err(WriteError::Session(ended.clone())));
        assert_eq!(stream.stop(1), Err(ReadError::Session(ended)));
    })
    .await;
}

#[tokio::test]
async fn halves_of_one_stream_work_in_different_tasks() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        spawn_echo(server);
        let (mut send, mut recv) = client.open_stream().unwrap().split();
        let writing = tokio::spawn(async move {
            for start in (0..1_000_000).step_by(1000) {
                send.write_all(&pattern(start..start + 1000)).await.unwrap();
            }
        });
        let reading = tokio::spawn(async move { check_to_end(&mut recv, 0).await });
        writing.await.unwrap();
        assert_eq!(reading.await.unwrap(), 1_000_000);
    })
    .await;
}

#[tokio::test]
async fn methods_keep_their_names_beside_the_traits_of_tokio() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_stream().unwrap();
        stream.write_all(b"12").await.unwrap();
        let mut accepted = server.accept_stream().await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'1');
        accepted.read_exact(&mut [0; 1]).await.unwrap();
        accepted.write_u8(b'3').await.unwrap();
        accepted.write_all(b"4").await.unwrap();
        stream.reset(1).unwrap();
        let gone: ReadError = accepted.read(&mut [0; 2]).await.unwrap_err();
        assert_eq!(gone, ReadError::Reset(ErrorCode::Application(1)));
        let (mut send, _) = accepted.split();
        send.write_all(b"56").await.unwrap();
        send.finish().unwrap();
        assert_eq!(stream.read_to_end(4).await.unwrap(), b"3456");
    })
    .await;
}

#[tokio::test]
async fn panic_of_a_task_resets_its_streams_and_nothing_else() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        spawn_echo(server.clone());
        let mut stream = client.open_uni_stream().unwrap();
        let mut received = server.accept_uni_stream().await.unwrap();
        let task = tokio::spawn(async move {
            stream.write_all(b"a part").await.unwrap();
            panic!("as this test wants it");
        });
        assert!(task.await.unwrap_err().is_panic());
        let error = received.read_to_end(100).await.unwrap_err();
        assert_eq!(error, ReadToEndError::Read(ReadError::Reset(ErrorCode::Application(0))));

        let mut stream = client.open_stream().unwrap();
        stream.write_all(b"the session lives").await.unwrap();
        stream.finish().unwrap();
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"the session lives");
    })
    .await;
}

#[tokio::test]
async fn read_of_no_bytes_waits_for_nothing() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_stream().unwrap();
        let mut accepted = server.accept_stream().await.unwrap();
        let nothing = |chunk: Option<Chunk>| chunk.map(|chunk| (chunk.offset.0, chunk.data.len()));
        assert_eq!(nothing(accepted.read_chunk(0, true).await.unwrap()), Some((0, 0)), "nothing came yet");
        stream.write_all(b"all there is").await.unwrap();
        stream.finish().unwrap();
        stream.finished().await.unwrap();
        assert_eq!(nothing(accepted.read_chunk(0, true).await.unwrap()), Some((0, 0)));
        assert_eq!(accepted.read(&mut []).await.unwrap(), 0);
        accepted.read_exact(&mut []).await.unwrap();
        accepted.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!(nothing(accepted.read_chunk(0, true).await.unwrap()), Some((4, 0)));
        assert_eq!(accepted.read_to_end(100).await.unwrap(), b"there is");
        assert_eq!(accepted.read_chunk(0, true).await.unwrap(), None, "the end");
    })
    .await;
}

#[tokio::test]
async fn reset_after_the_end_is_an_error_and_changes_nothing() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut stream = client.open_stream().unwrap();
        let mut accepted = server.accept_stream().await.unwrap();
        stream.write_all(b"whole").await.unwrap();
        stream.finish().unwrap();
        stream.finished().await.unwrap();
        assert_eq!(stream.reset(7).unwrap_err(), WriteError::Finished);
        stream.finished().await.unwrap();
        assert_eq!(accepted.read_to_end(100).await.unwrap(), b"whole");

        accepted.reset(8).unwrap();
        assert_eq!(accepted.reset(9).unwrap_err(), WriteError::Reset);
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err(), ReadError::Reset(ErrorCode::Application(8)));
    })
    .await;
}

#[tokio::test]
async fn chunks_are_read_together_and_tell_the_end_and_errors() {
    within(async {
        let Pair { client, server, .. } = pair().await;
        let mut sent = client.open_uni_stream().unwrap();
        sent.write_all(&pattern(0..100_000)).await.unwrap();
        sent.finish().unwrap();
        let mut received = server.accept_uni_stream().await.unwrap();
        assert_eq!(received.read_chunks(&mut []).await, Ok(Some(0)));
        let (mut chunks, mut all) = (vec![Bytes::new(); 8], Vec::new());
        while let Some(count) = received.read_chunks(&mut chunks).await.unwrap() {
            assert!((1..=8).contains(&count));
            chunks[..count].iter().for_each(|chunk| all.extend_from_slice(chunk));
        }
        assert_eq!(all, pattern(0..100_000));
        assert_eq!(received.read_chunks(&mut chunks).await, Ok(None), "the end stays");

        let mut sent = client.open_uni_stream().unwrap();
        sent.write_all(b"a part").await.unwrap();
        let mut received = server.accept_uni_stream().await.unwrap();
        assert_eq!(received.read_chunks(&mut chunks).await, Ok(Some(1)));
        sent.reset(7).unwrap();
        assert_eq!(received.read_chunks(&mut chunks).await, Err(ReadError::Reset(ErrorCode::Application(7))));
    })
    .await;
}
