//! Welcomes, signed payloads and forwarded tickets, and that no signature of one kind serves as another.

use super::keys::unhex;
use super::*;
use crate::{
    auth::identity::message,
    id::{GrantId, StreamId},
};

// [P-4.2] [P-4.11]
#[test]
fn welcome_proves_one_identity_on_one_path_to_one_client() {
    let (session, path, key) = (claims().session, claims().path, client().public());
    let proof = welcome_proof(&secondary(), &EXPORTER, session, path, &key);
    let server = secondary().public();
    assert_eq!(verify_welcome(&server, &proof, &EXPORTER, session, path, &key), Ok(()));
    for verdict in [
        verify_welcome(&thief().public(), &proof, &EXPORTER, session, path, &key),
        verify_welcome(&server, &proof, &EXPORTER, SessionId([0; 16]), path, &key),
        verify_welcome(&server, &proof, &EXPORTER, session, PathId(8), &key),
        verify_welcome(&server, &proof, &EXPORTER, session, path, &thief().public()),
    ] {
        assert_eq!(verdict, Err(AuthError::Welcome));
    }
    for bit in 0..proof.len() * 8 {
        let verdict = verify_welcome(&server, &flipped(&proof, bit), &EXPORTER, session, path, &key);
        assert_eq!(verdict, Err(AuthError::Welcome), "bit {bit}");
    }
}

fn context() -> SignatureContext {
    SignatureContext { session: claims().session, from: PathId::PRIMARY, to: PathId(7), sequence: 41 }
}

fn other_contexts() -> [SignatureContext; 6] {
    [
        SignatureContext { session: SessionId([0; 16]), ..context() },
        SignatureContext { from: PathId(1), ..context() },
        SignatureContext { to: PathId(8), ..context() },
        SignatureContext { from: PathId(7), to: PathId::PRIMARY, ..context() },
        SignatureContext { sequence: 42, ..context() },
        SignatureContext { sequence: 40, ..context() },
    ]
}

// [P-4.2] [P-8.10]
#[test]
fn grant_signature_binds_all_it_covers() {
    let (grant, stream, range, request) = (GrantId(5), StreamId(4), 100..200, b"GET /part".as_slice());
    let signed = sign_grant(&primary(), context(), grant, stream, range.clone(), request);
    let key = primary().public();
    assert_eq!(verify_grant(&key, &signed, context(), grant, stream, range.clone(), request), Ok(()));
    let mut verdicts = vec![
        verify_grant(&thief().public(), &signed, context(), grant, stream, range.clone(), request),
        verify_grant(&key, &signed, context(), GrantId(6), stream, range.clone(), request),
        verify_grant(&key, &signed, context(), grant, StreamId(0), range.clone(), request),
        verify_grant(&key, &signed, context(), grant, stream, 99..200, request),
        verify_grant(&key, &signed, context(), grant, stream, 100..201, request),
        verify_grant(&key, &signed, context(), grant, stream, 0..u64::MAX, request),
        verify_grant(&key, &signed, context(), grant, stream, range.clone(), b""),
        verify_grant(&key, &signed, context(), grant, stream, range.clone(), b"GET /parts"),
    ];
    for other in other_contexts() {
        verdicts.push(verify_grant(&key, &signed, other, grant, stream, range.clone(), request));
    }
    for bit in 0..signed.len() * 8 {
        let bad = flipped(&signed, bit);
        verdicts.push(verify_grant(&key, &bad, context(), grant, stream, range.clone(), request));
    }
    for (at, verdict) in verdicts.into_iter().enumerate() {
        assert_eq!(verdict, Err(AuthError::Payload), "case {at}");
    }
}

// [P-4.2] [P-7.3]
#[test]
fn raw_signature_binds_all_it_covers() {
    let signed = sign_raw(&secondary(), context(), b"payload");
    let key = secondary().public();
    assert_eq!(verify_raw(&key, &signed, context(), b"payload"), Ok(()));
    let mut verdicts = vec![
        verify_raw(&primary().public(), &signed, context(), b"payload"),
        verify_raw(&key, &signed, context(), b"payloae"),
        verify_raw(&key, &signed, context(), b""),
    ];
    verdicts.extend(other_contexts().map(|other| verify_raw(&key, &signed, other, b"payload")));
    verdicts.extend((0..512).map(|bit| verify_raw(&key, &flipped(&signed, bit), context(), b"payload")));
    for (at, verdict) in verdicts.into_iter().enumerate() {
        assert_eq!(verdict, Err(AuthError::Payload), "case {at}");
    }
}

// [P-4.2] [P-4.4]
#[test]
fn hello_proves_one_key_on_one_connection() {
    let proof = hello_proof(&client(), &EXPORTER);
    assert_eq!(verify_hello(&client().public(), &proof, &EXPORTER), Ok(()));
    assert_eq!(verify_hello(&thief().public(), &proof, &EXPORTER), Err(AuthError::Proof));
    for bit in 0..EXPORTER.len() * 8 {
        let verdict = verify_hello(&client().public(), &proof, &flipped(&EXPORTER, bit));
        assert_eq!(verdict, Err(AuthError::Proof), "bit {bit}");
    }
    for bit in 0..proof.len() * 8 {
        let verdict = verify_hello(&client().public(), &flipped(&proof, bit), &EXPORTER);
        assert_eq!(verdict, Err(AuthError::Proof), "bit {bit}");
    }
}

// [P-4.14]
#[test]
fn lease_is_renewed_by_what_is_new_and_counts_from_when_that_was_made() {
    let (session, path, issuer) = (claims().session, claims().path, primary().public());
    let term = || LeaseTerm::new(issuer, session, path, Duration::from_secs(60), at(ISSUED_MS));
    let signed = |issued_ms| sign_lease(&primary(), session, path, at(issued_ms));
    for (issued_ms, now_ms, left_ms) in [
        (ISSUED_MS, ISSUED_MS, 0),
        (ISSUED_MS - 1, ISSUED_MS, 0),
        (ISSUED_MS + 1, ISSUED_MS, 60_000),
        (ISSUED_MS + 30_000, ISSUED_MS, 60_000),
        (ISSUED_MS + 30_001, ISSUED_MS, 0),
        (ISSUED_MS + 1, ISSUED_MS + 30_001, 30_000),
        (ISSUED_MS + 1, ISSUED_MS + 60_000, 1),
        (ISSUED_MS + 1, ISSUED_MS + 60_001, 0),
        (u64::MAX, ISSUED_MS, 0),
        (u64::MAX, u64::MAX, 0),
    ] {
        let left = Some(Duration::from_millis(left_ms)).filter(|left| !left.is_zero());
        let verdict = term().renew(at(issued_ms), &signed(issued_ms), at(now_ms));
        assert_eq!(verdict, Ok(left), "issued at {issued_ms}, seen at {now_ms}");
        // What renews nothing is not even looked at.
        let forged = term().renew(at(issued_ms), &[0; 64], at(now_ms));
        assert_eq!(forged, if left.is_some() { Err(AuthError::Payload) } else { Ok(None) });
    }
    let mut once = term();
    assert_eq!(once.renew(at(ISSUED_MS + 9), &signed(ISSUED_MS + 9), at(ISSUED_MS)), Ok(Some(Duration::from_secs(60))));
    for again in [ISSUED_MS + 9, ISSUED_MS + 8] {
        assert_eq!(once.renew(at(again), &signed(again), at(ISSUED_MS)), Ok(None));
    }
    for other in [
        sign_lease(&thief(), session, path, at(ISSUED_MS + 10)),
        sign_lease(&primary(), SessionId([0; 16]), path, at(ISSUED_MS + 10)),
        sign_lease(&primary(), session, PathId(8), at(ISSUED_MS + 10)),
        signed(ISSUED_MS + 11),
    ] {
        assert_eq!(once.renew(at(ISSUED_MS + 10), &other, at(ISSUED_MS)), Err(AuthError::Payload));
    }
}

// [P-7.1] [P-8.10]
#[test]
fn signatures_are_accepted_once_and_in_order() {
    let mut window = ReplayWindow::default();
    for (sequence, verdict) in [
        (0, Ok(())),
        (0, Err(AuthError::Replayed)),
        (1, Ok(())),
        (7, Ok(())),
        (3, Err(AuthError::Replayed)),
        (7, Err(AuthError::Replayed)),
        (8, Ok(())),
        (u64::MAX, Ok(())),
        (u64::MAX, Err(AuthError::Replayed)),
        (0, Err(AuthError::Replayed)),
    ] {
        assert_eq!(window.accept(sequence), verdict, "{sequence}");
    }
}

// [P-7.3]
#[test]
fn forwarded_ticket_names_the_server_behind_a_path() {
    let (session, path, issuer) = (claims().session, claims().path, primary().public());
    let ticket = claims().sign(&primary());
    assert_eq!(verify_forwarded_ticket(&ticket, session, path, &issuer), Ok(secondary().public()));
    assert_eq!(verify_forwarded_ticket(&ticket, session, PathId(8), &issuer), Err(AuthError::Scope));
    assert_eq!(verify_forwarded_ticket(&ticket, SessionId([0; 16]), path, &issuer), Err(AuthError::Scope));
    assert_eq!(verify_forwarded_ticket(&ticket, session, path, &thief().public()), Err(AuthError::Issuer));
    assert_eq!(verify_forwarded_ticket(&claims().sign(&thief()), session, path, &issuer), Err(AuthError::Signature));
    assert!(matches!(verify_forwarded_ticket(b"", session, path, &issuer), Err(AuthError::Malformed(_))));
}

// [P-4.2]
#[test]
fn signature_of_one_kind_never_serves_as_another() {
    let key = primary();
    let parts: [&[u8]; 2] = [b"the same", b"parts"];
    for (signed, made) in Label::ALL.map(|label| (label, key.sign(label, &parts))) {
        for read in Label::ALL {
            assert_eq!(key.public().verify(read, &parts, &made), read == signed, "{signed:?} as {read:?}");
        }
    }
}

#[test]
fn statements_do_not_pass_for_their_neighbours() {
    // One key in every role, so that nothing but the label and the layout keeps the kinds apart.
    let key = primary();
    let public = key.public();
    let ticket = Ticket { secondary: public, client_key: public, ..claims() }.sign(&key);
    let (encoded, ticket_signature) = ticket.split_last_chunk().expect("longer than a signature");
    let (session, path) = (claims().session, claims().path);
    let request = b"request".as_slice();
    let proof = join_proof(&key, &EXPORTER, &ticket);
    let welcome = welcome_proof(&key, &EXPORTER, session, path, &public);
    let grant = sign_grant(&key, context(), GrantId(1), StreamId(0), 0..9, request);
    let raw = sign_raw(&key, context(), request);
    let lease = |issued_ms| LeaseTerm::new(public, session, path, Duration::from_secs(60), at(issued_ms));
    let hello = hello_proof(&key, &EXPORTER);
    let renewal = sign_lease(&key, session, path, at(ISSUED_MS));
    let signatures = [*ticket_signature, proof, welcome, grant, raw, hello, renewal];
    for (made, signature) in signatures.iter().enumerate() {
        let read = [
            join(&[encoded, signature].concat(), &proof).is_ok()
                || Ticket::decode(&[encoded, signature].concat()).and_then(UnverifiedTicket::check_signature).is_ok(),
            read_join(&ticket, &public, at(ISSUED_MS), |_| true).unwrap().verify(signature, &EXPORTER).is_ok(),
            verify_welcome(&public, signature, &EXPORTER, session, path, &public).is_ok(),
            verify_grant(&public, signature, context(), GrantId(1), StreamId(0), 0..9, request).is_ok(),
            verify_raw(&public, signature, context(), request).is_ok(),
            verify_hello(&public, signature, &EXPORTER).is_ok(),
            lease(0).renew(at(ISSUED_MS), signature, at(ISSUED_MS)).is_ok(),
        ];
        for (read_as, good) in read.into_iter().enumerate() {
            assert_eq!(good, made == read_as, "signature {made} read as {read_as}");
        }
    }
    // The parts of a grant, dressed as a raw payload and as a ticket.
    let inner = [&1u64, &0, &0, &9].map(|number| number.to_be_bytes()).concat();
    for payload in [inner.clone(), [&inner, request].concat(), [&inner[..], &[0, 0, 0, 7], request].concat()] {
        assert_eq!(verify_raw(&public, &grant, context(), &payload), Err(AuthError::Payload));
    }
    for blob in [grant.to_vec(), [request, &grant].concat(), message(Label::Grant, &[&inner, request])] {
        assert!(Ticket::decode(&blob).is_err());
    }
}

// [P-4.2]
#[test]
fn messages_are_golden_and_unambiguous() {
    assert_eq!(message(Label::Raw, &[b"ab", b""]), b"\0\0\0\x0akwik/1 raw\0\0\0\x02ab\0\0\0\0");
    assert_ne!(message(Label::Raw, &[b"ab", b"c"]), message(Label::Raw, &[b"a", b"bc"]));
    assert_ne!(message(Label::Raw, &[b"ab"]), message(Label::Raw, &[b"ab", b""]));
    let texts = Label::ALL.map(Label::text);
    let (proofs, signatures) = (["hello", "join proof", "welcome"], ["lease", "grant", "raw"]);
    let kinds = std::iter::once("ticket").chain(proofs).chain(signatures).map(|kind| format!("kwik/1 {kind}"));
    assert!(kinds.eq(texts), "{texts:?}");
}

// [P-4.2]
#[test]
fn statements_are_made_of_the_parts_that_the_protocol_lists() {
    let key = primary();
    let (session, path) = ([0x5e; 16], 7_u32.to_be_bytes());
    let place = [&session[..], &[0; 4], &path, &41_u64.to_be_bytes()].concat();
    let inner = [5_u64, 4, 100, 200].map(u64::to_be_bytes).concat();
    let grant = sign_grant(&key, context(), GrantId(5), StreamId(4), 100..200, b"request");
    assert_eq!(grant, key.sign(Label::Grant, &[&place, &inner, b"request"]));
    assert_eq!(sign_raw(&key, context(), b"data"), key.sign(Label::Raw, &[&place, b"data"]));
    let client_key = client().public();
    let welcome = welcome_proof(&key, &EXPORTER, claims().session, PathId(7), &client_key);
    assert_eq!(welcome, key.sign(Label::Welcome, &[&EXPORTER, &session, &path, client_key.as_bytes()]));
    assert_eq!(hello_proof(&key, &EXPORTER), key.sign(Label::Hello, &[&EXPORTER]));
    let lease = sign_lease(&key, claims().session, PathId(7), at(ISSUED_MS));
    assert_eq!(lease, key.sign(Label::Lease, &[&session, &path, &ISSUED_MS.to_be_bytes()]));
    let ticket = claims().sign(&key);
    assert_eq!(ticket[CLAIMS_BYTES..], key.sign(Label::Ticket, &[&ticket[..CLAIMS_BYTES]]));
    // SHA-256 of "abc" (FIPS 180-4).
    let digest = unhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(join_proof(&key, &EXPORTER, b"abc"), key.sign(Label::JoinProof, &[&EXPORTER, &digest]));
}

// [P-4.1]
#[test]
fn signature_with_a_component_of_small_order_is_refused() {
    // Made by the holder of the key: R is the neutral element, and the equation of RFC 8032 holds.
    let r = unhex("0100000000000000000000000000000000000000000000000000000000000000");
    let s = unhex("d4e45fc23d4ae9826673b541e22d37186a972f77739a4eebaef436a5f6437207");
    let signature: [u8; 64] = std::array::from_fn(|at| if at < 32 { r[at] } else { s[at - 32] });
    assert!(!primary().public().verify(Label::Raw, &[b"part"], &signature));
    // The same scalar and one more of the group's order.
    let honest = primary().sign(Label::Raw, &[b"part"]);
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut doubled = honest;
    let mut carry = 0;
    for (byte, add) in doubled[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    assert!(primary().public().verify(Label::Raw, &[b"part"], &honest));
    assert!(!primary().public().verify(Label::Raw, &[b"part"], &doubled));
}
