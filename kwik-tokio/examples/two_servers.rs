//! Two servers and a client in one process. The client asks one server, and reads one stream that both wrote.
//!
//! `cargo run -p kwik-tokio --example two_servers`

use std::{error::Error, io, io::Write};

use kwik_tokio::{
    ClientConfig, Identity, Listener, PathTarget, ServerConfig, ServerSession, dial, generate_identity, listen,
    rustls::{
        RootCertStore,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SECOND_HALF: &str = "the secondary the other.";

#[tokio::main]
async fn main() -> Result<()> {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let chain = vec![certificate.cert.der().clone()];
    let config = |identity: Identity| {
        let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
        ServerConfig::new(identity, chain.clone(), key.into())
    };

    // Every server has an identity of its own. A secondary names the primaries whose clients it serves.
    let (first, second) = (generate_identity()?, generate_identity()?);
    let (trusted, identity) = (first.public(), second.public());
    let primary = listen("127.0.0.1:0", config(first)?).await?;
    let secondary = listen("127.0.0.1:0", config(second)?.trust_primary(trusted)).await?;
    let target = PathTarget { address: secondary.local_addr(), server_name: "localhost".to_owned(), identity };

    let address = primary.local_addr();
    let servers = [tokio::spawn(serve_as_primary(primary, target)), tokio::spawn(serve_as_secondary(secondary))];

    // The client knows nothing of all that.
    let session = dial((address, "localhost"), ClientConfig::with_roots(roots(&chain)?)?).await?;
    let mut stream = session.open_stream_sync().await?;
    stream.write_all(b"Who wrote this?").await?;
    stream.finish()?;
    let answer = stream.read_to_end(1024).await?;
    writeln!(io::stdout(), "{}", String::from_utf8_lossy(&answer))?;
    session.close(0, "done").await?;

    for server in servers {
        server.await??;
    }
    Ok(())
}

fn roots(chain: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

/// Serves one session: it writes the first half of the answer, and leaves the second one to the other server.
async fn serve_as_primary(listener: Listener, other: PathTarget) -> Result<()> {
    let session = accept(&listener).await?;
    let path = session.add_path(other).await?;
    let mut stream = session.accept_stream().await?;
    let question = stream.read_to_end(1024).await?;
    stream.write_all(b"The primary wrote one half, ").await?;
    let delegation = stream.delegate(path, SECOND_HALF.len() as u64, question)?;
    stream.finish()?;
    delegation.delivered().await?;
    session.closed().await;
    listener.close(0, "done").await;
    Ok(())
}

/// Serves one session: what a primary delegates comes as a stream, with the request that it sent along.
async fn serve_as_secondary(listener: Listener) -> Result<()> {
    let session = accept(&listener).await?;
    let mut part = session.accept_stream().await?;
    let question = part.read_to_end(1024).await?;
    assert_eq!(question, b"Who wrote this?");
    part.write_all(SECOND_HALF.as_bytes()).await?;
    part.finish()?;
    session.closed().await;
    listener.close(0, "done").await;
    Ok(())
}

async fn accept(listener: &Listener) -> Result<ServerSession> {
    listener.accept().await.ok_or_else(|| "the listener was closed".into())
}
