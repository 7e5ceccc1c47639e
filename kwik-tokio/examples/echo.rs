//! A server and a client in one process: the client writes a line, the server writes it back.
//!
//! `cargo run -p kwik-tokio --example echo`

use std::{error::Error, io, io::Write};

use kwik_tokio::{
    ClientConfig, Listener, ServerConfig, ServerSession, ServerStream, dial, generate_identity, listen,
    rustls::{
        RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der())?;
    let chain = vec![certificate.cert.der().clone()];
    let roots = trust(&chain)?;

    let listener = listen("127.0.0.1:0", ServerConfig::new(generate_identity()?, chain, key)?).await?;
    let address = listener.local_addr();
    let server = tokio::spawn(serve(listener));

    let session = dial((address, "localhost"), ClientConfig::with_roots(roots)?).await?;
    let mut stream = session.open_stream_sync().await?;
    stream.write_all(b"hello over KWIK").await?;
    stream.finish()?;
    let echo = stream.read_to_end(1024).await?;
    writeln!(io::stdout(), "{}: {}", session.welcomed().await?, String::from_utf8_lossy(&echo))?;
    session.close(0, "done").await?;
    server.await?;
    Ok(())
}

fn trust(chain: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

/// Serves one session, then closes the listener.
async fn serve(listener: Listener) {
    if let Some(session) = listener.accept().await {
        while let Ok(stream) = session.accept_stream().await {
            tokio::spawn(report(session.clone(), stream));
        }
    }
    listener.close(0, "done").await;
}

async fn report(session: ServerSession, stream: ServerStream) {
    if let Err(error) = echo(stream).await {
        let _ = writeln!(io::stderr(), "{session:?}: {error}");
    }
}

async fn echo(mut stream: ServerStream) -> Result<()> {
    while let Some(chunk) = stream.read_chunk(64 * 1024, true).await? {
        stream.write_chunk(chunk.data).await?;
    }
    stream.finish()?;
    Ok(())
}
