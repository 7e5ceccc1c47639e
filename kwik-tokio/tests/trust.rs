//! Who is believed, and what those hear who are not.

use std::sync::Arc;

use kwik_tokio::{
    AddPathError, ClientConfig, ConfigError, ConnectError, DialError, ErrorCode, Limits, Listener, PathTarget,
    ReadError, SecondaryTrust, ServerConfig, SessionError, TransportCode, dial, generate_identity, listen,
};

use crate::common::{ANY_PORT, Ca, Fleet, NAME, cancel_at_first_wait, check_to_end, spawn_filler, target, within};

fn dead_code(error: AddPathError) -> ErrorCode {
    match error {
        AddPathError::Died { reason, .. } => reason.code,
        error => panic!("{error}"),
    }
}

/// The session works with a server that may join, whatever happened before.
async fn check_unharmed(fleet: &Fleet) {
    assert!(fleet.primary.active_paths().len() <= 1, "{:?}", fleet.primary.active_paths());
    let secondary = fleet.join().await;
    spawn_filler(secondary.session.clone());
    let (client, mut primary) = fleet.stream().await;
    primary.delegate(secondary.path, 1000, "").unwrap().delivered().await.unwrap();
    primary.finish().unwrap();
    assert_eq!(check_to_end(&mut client.split().1, 0).await, 1000);
}

async fn refused(fleet: &Fleet, server: ServerConfig) -> ErrorCode {
    let listener = listen(ANY_PORT, server).await.unwrap();
    let code = dead_code(fleet.primary.add_path(target(&listener)).await.unwrap_err());
    cancel_at_first_wait(listener.accept()).await;
    check_unharmed(fleet).await;
    code
}

#[tokio::test]
async fn secondary_with_another_identity_than_named_does_not_join() {
    within(async {
        let fleet = Fleet::new(0).await;
        let listener = fleet.start_secondary().await;
        let named = PathTarget { identity: generate_identity().unwrap().public(), ..target(&listener) };
        let error = fleet.primary.add_path(named).await.unwrap_err();
        assert!(error.to_string().contains("path 1"), "{error}");
        assert_eq!(dead_code(error), TransportCode::AUTH_FAILED.into());
        cancel_at_first_wait(listener.accept()).await;
        check_unharmed(&fleet).await;
    })
    .await;
}

#[tokio::test]
async fn secondary_that_does_not_trust_the_primary_refuses() {
    within(async {
        let fleet = Fleet::new(0).await;
        let stranger = generate_identity().unwrap().public();
        let server = fleet.ca.server().trust_primary(stranger);
        assert_eq!(refused(&fleet, server).await, TransportCode::AUTH_FAILED.into());
    })
    .await;
}

#[tokio::test]
async fn secondary_with_a_certificate_for_another_name_does_not_join() {
    within(async {
        let fleet = Fleet::new(0).await;
        let server = fleet.ca.server_as("elsewhere.example", generate_identity().unwrap());
        let server = server.trust_primary(fleet.listener.identity());
        assert_eq!(refused(&fleet, server).await, TransportCode::TLS_FAILED.into());
    })
    .await;
}

// [P-4.12]
#[tokio::test]
async fn secondary_of_an_unknown_authority_joins_only_where_identities_suffice() {
    within(async {
        let fleet = Fleet::new(0).await;
        let server = |fleet: &Fleet| Ca::new().server().trust_primary(fleet.listener.identity());
        assert_eq!(refused(&fleet, server(&fleet)).await, TransportCode::TLS_FAILED.into());

        let trusting = |ca: &Ca| ca.client().secondary_trust(SecondaryTrust::IdentityOnly);
        let fleet = Fleet::with_client(0, Limits::default(), trusting).await;
        let listener = listen(ANY_PORT, server(&fleet)).await.unwrap();
        let path = fleet.primary.add_path(target(&listener)).await.unwrap();
        spawn_filler(listener.accept().await.unwrap());
        let (client, mut primary) = fleet.stream().await;
        primary.delegate(path, 100_000, "").unwrap().delivered().await.unwrap();
        primary.finish().unwrap();
        assert_eq!(check_to_end(&mut client.split().1, 0).await, 100_000);
    })
    .await;
}

fn tls_failure(error: &DialError, listener: &Listener) -> bool {
    matches!(error, DialError::Handshake { address, source: SessionError::Transport { code, .. } }
        if *address == listener.local_addr() && *code == TransportCode::TLS_FAILED)
}

#[tokio::test]
async fn primary_with_another_name_or_authority_is_refused_in_the_handshake() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let error = dial((listener.local_addr(), "elsewhere.example"), ca.client()).await.unwrap_err();
        assert!(tls_failure(&error, &listener), "{error}");
        assert!(error.to_string().contains("elsewhere.example"), "{error}");
        let error = dial((listener.local_addr(), NAME), Ca::new().client()).await.unwrap_err();
        assert!(tls_failure(&error, &listener), "{error}");
        assert!(error.to_string().contains("invalid peer certificate"), "{error}");
        let error = dial((listener.local_addr(), "no name"), ca.client()).await.unwrap_err();
        let named = ConnectError::InvalidServerName("no name".into());
        assert!(matches!(&error, DialError::Connect { source, .. } if *source == named), "{error}");

        cancel_at_first_wait(listener.accept()).await;
        let client = dial((listener.local_addr(), NAME), ca.client()).await.unwrap();
        assert_eq!(client.welcomed().await.unwrap(), listener.accept().await.unwrap().id());
    })
    .await;
}

// [P-4.11]
#[tokio::test]
async fn pinned_primary_must_hold_the_identity() {
    within(async {
        let ca = Ca::new();
        let listener = listen(ANY_PORT, ca.server()).await.unwrap();
        let pin = |identity| ca.client().primary_identity(identity);
        let other = generate_identity().unwrap().public();
        let error = dial((listener.local_addr(), NAME), pin(other)).await.unwrap_err();
        let DialError::Handshake { source: SessionError::Transport { code, detail }, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(code, TransportCode::IDENTITY_MISMATCH);
        assert!(detail.contains("identity"), "{detail}");
        // The server believed in a session until the client closed it.
        let server = listener.accept().await.unwrap();
        let end = server.closed().await;
        let mismatch = |end: &SessionError| {
            matches!(end, SessionError::Transport { code, .. }
            if *code == TransportCode::IDENTITY_MISMATCH)
        };
        assert!(mismatch(&end), "{end}");
        assert!(server.accept_stream().await.is_err(), "nothing was sent to it");

        let client = dial((listener.local_addr(), NAME), pin(listener.identity())).await.unwrap();
        assert!(client.id().is_some(), "a pinned primary has proven itself");
        let mut stream = client.open_uni_stream().unwrap();
        stream.write_all(b"secret").await.unwrap();
        drop(stream);
        let server = listener.accept().await.unwrap();
        assert_eq!(server.accept_uni_stream().await.unwrap().read_to_end(100).await.unwrap(), b"secret");
    })
    .await;
}

#[tokio::test]
async fn credential_opens_the_door_or_does_not() {
    within(async {
        let ca = Ca::new();
        let server = ca.server().authorizer(Arc::new(|credential: &[u8], _| credential == b"sesame"));
        let listener = listen(ANY_PORT, server).await.unwrap();
        let with = |credential: &'static [u8]| -> ClientConfig { ca.client().credential(credential) };
        // The client may speak before it is judged: that it was refused, it hears later.
        let client = dial((listener.local_addr(), NAME), with(b"barley")).await.unwrap();
        let mut stream = client.open_stream().unwrap();
        let _ = stream.write(b"anyone?").await;
        let refused = SessionError::Transport { code: TransportCode::AUTH_FAILED, detail: String::new() };
        assert_eq!(client.welcomed().await.unwrap_err(), refused);
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err(), ReadError::Session(refused.clone()));
        assert_eq!(client.closed().await, refused);
        assert_eq!(client.id(), None);
        cancel_at_first_wait(listener.accept()).await;

        let client = dial((listener.local_addr(), NAME), with(b"sesame")).await.unwrap();
        client.welcomed().await.unwrap();
        listener.accept().await.unwrap();

        let error = dial((listener.local_addr(), NAME), with(&[0; 5000])).await.unwrap_err();
        let too_long = ConnectError::Config(ConfigError::CredentialTooLong { len: 5000 });
        assert!(matches!(&error, DialError::Connect { source, .. } if *source == too_long), "{error}");
    })
    .await;
}
