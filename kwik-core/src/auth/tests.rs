//! Tickets and joins. What else is signed, and the keys themselves, have files of their own.

mod keys;
mod statements;

use std::{ops::Range, time::Duration};

use proptest::prelude::*;

use super::{
    identity::Label,
    ticket::{LEASE_MAX, UnverifiedTicket},
    *,
};
use crate::{
    id::{Epoch, PathId, SessionId},
    limits::{SERVER_NAME_BYTES_MAX, TICKET_BYTES_MAX},
};

const EXPORTER: [u8; 32] = [0xe5; 32];
const ISSUED_MS: u64 = 1_800_000_000_000;
const NAME: &str = "s1.example";

// Where the fields of a ticket with `NAME` lie.
const VERSION_AT: usize = 0;
const ISSUER: Range<usize> = 29..61;
const SECONDARY: Range<usize> = 61..93;
const CLIENT: Range<usize> = 93..125;
const NAME_FIELD: Range<usize> = 125..137;
const TIMES: Range<usize> = 137..153;
const LEASE: Range<usize> = 153..161;
const CLAIMS_BYTES: usize = 161;

fn primary() -> Identity {
    Identity::from_seed([1; 32])
}

fn secondary() -> Identity {
    Identity::from_seed([2; 32])
}

fn client() -> Identity {
    Identity::from_seed([3; 32])
}

fn thief() -> Identity {
    Identity::from_seed([4; 32])
}

fn at(millis: u64) -> UnixTime {
    UnixTime::new(Duration::from_millis(millis))
}

fn claims() -> Ticket {
    Ticket {
        session: SessionId([0x5e; 16]),
        path: PathId(7),
        epoch: Epoch(9),
        issuer: primary().public(),
        secondary: secondary().public(),
        server_name: NAME.to_owned(),
        client_key: client().public(),
        issued_at: at(ISSUED_MS),
        expires_at: at(ISSUED_MS + 60_000),
        lease: Duration::from_secs(3600),
    }
}

fn join_at(ticket: &[u8], proof: &[u8; 64], now: UnixTime) -> Result<Ticket, AuthError> {
    read_join(ticket, &secondary().public(), now, |issuer| *issuer == primary().public())?.verify(proof, &EXPORTER)
}

fn join(ticket: &[u8], proof: &[u8; 64]) -> Result<Ticket, AuthError> {
    join_at(ticket, proof, at(ISSUED_MS + 1000))
}

/// What the holder of the client's key gets with this ticket, whatever its bytes.
fn join_with_fresh_proof(ticket: &[u8]) -> Result<Ticket, AuthError> {
    join(ticket, &join_proof(&client(), &EXPORTER, ticket))
}

fn flipped<const N: usize>(bytes: &[u8; N], bit: usize) -> [u8; N] {
    let mut bytes = *bytes;
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn honest_client_joins() {
    let ticket = claims().sign(&primary());
    assert_eq!(ticket.len(), CLAIMS_BYTES + SIGNATURE_BYTES);
    assert_eq!(join_with_fresh_proof(&ticket), Ok(claims()));
}

// [P-4.5]
#[test]
fn every_flipped_bit_of_a_ticket_is_refused() {
    let ticket = claims().sign(&primary());
    let proof = join_proof(&client(), &EXPORTER, &ticket);
    for bit in 0..ticket.len() * 8 {
        let mut bad = ticket.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let stale = join(&bad, &proof).expect_err("a changed ticket was believed");
        // Even the client itself, who can prove anything about its own key, cannot change its ticket.
        let fresh = join_with_fresh_proof(&bad).expect_err("a changed ticket with a fresh proof was believed");
        assert_eq!(stale, fresh, "bit {bit}");
        let expected = match bit / 8 {
            VERSION_AT => matches!(fresh, AuthError::Malformed(_)),
            byte if ISSUER.contains(&byte) => matches!(fresh, AuthError::Issuer | AuthError::Key(_)),
            byte if SECONDARY.contains(&byte) => matches!(fresh, AuthError::Audience | AuthError::Key(_)),
            byte if CLIENT.contains(&byte) => matches!(fresh, AuthError::Signature | AuthError::Key(_)),
            byte if NAME_FIELD.contains(&byte) || LEASE.contains(&byte) => {
                matches!(fresh, AuthError::Signature | AuthError::Malformed(_))
            }
            byte if TIMES.contains(&byte) => matches!(fresh, AuthError::Signature | AuthError::Time),
            _ => fresh == AuthError::Signature,
        };
        assert!(expected, "bit {bit}: {fresh}");
        let told = if fresh == AuthError::Time { TransportCode::AUTH_TIME } else { TransportCode::AUTH_FAILED };
        assert_eq!(fresh.code(), told, "bit {bit} tells more than that authentication failed");
    }
}

// [P-4.5]
#[test]
fn every_flipped_bit_of_a_proof_is_refused() {
    let ticket = claims().sign(&primary());
    let proof = join_proof(&client(), &EXPORTER, &ticket);
    for bit in 0..proof.len() * 8 {
        assert_eq!(join(&ticket, &flipped(&proof, bit)), Err(AuthError::Proof), "bit {bit}");
    }
}

// [P-4.2] [P-4.5] [P-4.11]
#[test]
fn every_flipped_bit_of_the_exporter_is_refused() {
    let ticket = claims().sign(&primary());
    let welcome = welcome_proof(&secondary(), &EXPORTER, claims().session, claims().path, &client().public());
    for bit in 0..EXPORTER.len() * 8 {
        let other = flipped(&EXPORTER, bit);
        assert_eq!(join(&ticket, &join_proof(&client(), &other, &ticket)), Err(AuthError::Proof), "bit {bit}");
        let key = secondary().public();
        let verdict = verify_welcome(&key, &welcome, &other, claims().session, claims().path, &client().public());
        assert_eq!(verdict, Err(AuthError::Welcome), "bit {bit}");
    }
}

// [P-4.3]
#[test]
fn every_other_length_of_a_ticket_is_refused() {
    let ticket = claims().sign(&primary());
    for len in 0..ticket.len() {
        assert!(join_with_fresh_proof(&ticket[..len]).is_err(), "cut to {len}");
        assert!(join_with_fresh_proof(&ticket[len + 1..]).is_err(), "without the first {}", len + 1);
    }
    for fill in [0, 0xff] {
        let (mut behind, mut between) = (ticket.to_vec(), ticket.to_vec());
        while behind.len() <= TICKET_BYTES_MAX {
            behind.push(fill);
            between.insert(CLAIMS_BYTES, fill);
            assert!(join_with_fresh_proof(&behind).is_err(), "{} bytes", behind.len());
            assert!(join_with_fresh_proof(&between).is_err(), "{} bytes", between.len());
        }
    }
}

// [P-4.3]
#[test]
fn not_even_the_issuer_can_sign_another_length() {
    let whole = claims().sign(&primary())[..CLAIMS_BYTES].to_vec();
    let resign = |encoded: &[u8]| [encoded, &primary().sign(Label::Ticket, &[encoded])].concat();
    assert_eq!(join_with_fresh_proof(&resign(&whole)), Ok(claims()));
    for len in 0..CLAIMS_BYTES {
        assert!(matches!(Ticket::decode(&resign(&whole[..len])), Err(AuthError::Malformed(_))), "cut to {len}");
    }
    for extra in 1..64 {
        let longer = [&whole[..], &vec![0; extra]].concat();
        let verdict = join_with_fresh_proof(&resign(&longer));
        assert_eq!(verdict, Err(AuthError::Malformed("too long")), "{extra} more");
    }
}

// [P-4.3]
#[test]
fn server_names_are_taken_up_to_their_limit() {
    let longest = "n".repeat(SERVER_NAME_BYTES_MAX);
    for name in ["n", &longest] {
        let ticket = Ticket { server_name: name.to_owned(), ..claims() };
        let encoded = ticket.sign(&primary());
        assert!(encoded.len() <= TICKET_BYTES_MAX);
        assert_eq!(join_with_fresh_proof(&encoded), Ok(ticket));
    }
    let (too_long, huge) = (format!("{longest}n"), "n".repeat(70_000));
    for name in ["", "a b", "a\0", "a\n", "\u{7f}", "é", &too_long, &huge] {
        let encoded = Ticket { server_name: name.to_owned(), ..claims() }.sign(&primary());
        assert!(matches!(join_with_fresh_proof(&encoded), Err(AuthError::Malformed(_))), "{name:.9?}");
    }
}

#[test]
fn changed_claims_need_a_new_signature() {
    let signed = claims().sign(&primary());
    let changed = [
        Ticket { session: SessionId([0x5f; 16]), ..claims() },
        Ticket { path: PathId(8), ..claims() },
        Ticket { path: PathId::PRIMARY, ..claims() },
        Ticket { epoch: Epoch(8), ..claims() },
        Ticket { epoch: Epoch(u64::MAX), ..claims() },
        Ticket { server_name: "s2.example".to_owned(), ..claims() },
        Ticket { client_key: thief().public(), ..claims() },
        Ticket { expires_at: at(ISSUED_MS + 59_999), ..claims() },
        Ticket { lease: Duration::from_secs(3601), ..claims() },
    ];
    for ticket in changed {
        assert_eq!(join_with_fresh_proof(&ticket.sign(&thief())), Err(AuthError::Signature), "{ticket:?}");
        // The honest signature behind other claims.
        let mut grafted = ticket.sign(&primary())[..CLAIMS_BYTES].to_vec();
        grafted.extend_from_slice(&signed[CLAIMS_BYTES..]);
        assert_eq!(join_with_fresh_proof(&grafted), Err(AuthError::Signature), "{ticket:?}");
    }
}

#[test]
fn ticket_for_another_path_needs_its_own_proof() {
    let ticket = claims().sign(&primary());
    let proof = join_proof(&client(), &EXPORTER, &ticket);
    for other in [
        Ticket { session: SessionId([0x5f; 16]), ..claims() },
        Ticket { path: PathId(8), ..claims() },
        Ticket { epoch: Epoch(10), ..claims() },
    ] {
        assert_eq!(join(&other.sign(&primary()), &proof), Err(AuthError::Proof), "{other:?}");
    }
}

// [P-4.5]
#[test]
fn stolen_ticket_is_worth_nothing_without_the_key() {
    let ticket = claims().sign(&primary());
    assert_eq!(join(&ticket, &join_proof(&thief(), &EXPORTER, &ticket)), Err(AuthError::Proof));
    assert_eq!(join(&ticket, &[0; 64]), Err(AuthError::Proof));
    assert_eq!(join(&ticket, &[0xff; 64]), Err(AuthError::Proof));
}

// [P-4.5]
#[test]
fn relayed_join_is_refused_on_another_connection() {
    let ticket = claims().sign(&primary());
    let proof = join_proof(&client(), &[0x11; 32], &ticket);
    assert_eq!(join(&ticket, &proof), Err(AuthError::Proof));
}

// [P-4.5]
#[test]
fn ticket_is_refused_by_whom_it_is_not_for() {
    let ticket = claims().sign(&primary());
    let now = at(ISSUED_MS);
    assert_eq!(read_join(&ticket, &thief().public(), now, |_| true).err(), Some(AuthError::Audience));
    assert_eq!(read_join(&ticket, &secondary().public(), now, |_| false).err(), Some(AuthError::Issuer));
    let own = Ticket { issuer: thief().public(), ..claims() }.sign(&thief());
    assert_eq!(join_with_fresh_proof(&own), Err(AuthError::Issuer));
}

// [P-4.5]
#[test]
fn cheap_checks_come_before_signatures() {
    let mut ticket = claims().sign(&primary()).to_vec();
    ticket[CLAIMS_BYTES] ^= 1;
    let me = secondary().public();
    let late = at(ISSUED_MS + 600_000);
    assert_eq!(read_join(&ticket, &thief().public(), late, |_| false).err(), Some(AuthError::Audience));
    assert_eq!(read_join(&ticket, &me, late, |_| false).err(), Some(AuthError::Issuer));
    assert_eq!(read_join(&ticket, &me, late, |_| true).err(), Some(AuthError::Time));
    let unverified = read_join(&ticket, &me, at(ISSUED_MS), |_| true).expect("all but its signatures is good");
    assert_eq!(unverified.verify(&[0; 64], &EXPORTER), Err(AuthError::Signature));
}

// [P-4.5] [P-4.7]
#[test]
fn clocks_may_differ_by_the_skew_and_no_more() {
    let ticket = claims().sign(&primary());
    let proof = join_proof(&client(), &EXPORTER, &ticket);
    let edges = [-30_001, -30_000, 89_999, 90_000, 90_001];
    for offset_ms in (-600..=600).map(|seconds| seconds * 1000).chain(edges) {
        let now = at(ISSUED_MS.checked_add_signed(offset_ms).expect("a small offset"));
        let verdict = join_at(&ticket, &proof, now);
        if (-30_000..=90_000).contains(&offset_ms) {
            assert_eq!(verdict, Ok(claims()), "{offset_ms} ms");
        } else {
            let refusal = verdict.expect_err("a ticket outside its time was believed");
            assert_eq!((refusal, refusal.code()), (AuthError::Time, TransportCode::AUTH_TIME), "{offset_ms} ms");
        }
    }
}

// [P-4.7]
#[test]
fn ticket_may_not_claim_too_long_or_negative_a_time() {
    for (issued, expires, good) in [
        (ISSUED_MS, ISSUED_MS + 60_000, true),
        (ISSUED_MS, ISSUED_MS + 60_001, false),
        (ISSUED_MS, ISSUED_MS, true),
        (ISSUED_MS, ISSUED_MS - 1, false),
        (0, u64::MAX, false),
    ] {
        let ticket = Ticket { issued_at: at(issued), expires_at: at(expires), ..claims() };
        let verdict = join_with_fresh_proof(&ticket.sign(&primary()));
        assert_eq!(verdict, if good { Ok(ticket) } else { Err(AuthError::Time) }, "{issued}..{expires}");
    }
}

#[test]
fn absurd_times_are_judged_without_panic() {
    let moments = [0, 1, 29_999, 30_000, ISSUED_MS, u64::MAX / 2, u64::MAX - 30_000, u64::MAX - 1, u64::MAX];
    for issued in moments {
        for expires in moments {
            let ticket = Ticket { issued_at: at(issued), expires_at: at(expires), ..claims() };
            let encoded = ticket.sign(&primary());
            let proof = join_proof(&client(), &EXPORTER, &encoded);
            for now in moments {
                let wide = |millis: u64| i128::from(millis);
                let lifetime = wide(expires) - wide(issued);
                let good = (0..=60_000).contains(&lifetime)
                    && (wide(issued) - 30_000..=wide(expires) + 30_000).contains(&wide(now));
                let expected = if good { Ok(ticket.clone()) } else { Err(AuthError::Time) };
                assert_eq!(join_at(&encoded, &proof, at(now)), expected, "{issued}..{expires} at {now}");
            }
        }
    }
    assert_eq!(UnixTime::new(Duration::MAX), at(u64::MAX));
    assert_eq!(at(u64::MAX).saturating_add(Duration::MAX), at(u64::MAX));
    assert_eq!(UnixTime::new(Duration::from_nanos(1_999_999)), at(1));
}

// [P-4.3]
#[test]
fn lease_is_cut_by_the_issuer_and_never_believed_longer() {
    let cut = join_with_fresh_proof(&Ticket { lease: Duration::MAX, ..claims() }.sign(&primary()));
    assert_eq!(cut.map(|ticket| ticket.lease), Ok(LEASE_MAX));
    let max_ms = u64::try_from(LEASE_MAX.as_millis()).expect("a year");
    for millis in [max_ms + 1, u64::MAX] {
        let mut forged = claims().sign(&primary()).to_vec();
        forged[LEASE].copy_from_slice(&millis.to_be_bytes());
        assert_eq!(join_with_fresh_proof(&forged), Err(AuthError::Malformed("lease of illegal length")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_ticket_survives_signing(
        session: [u8; 16], path: u32, epoch: u64, seeds: [[u8; 32]; 3], server_name in "[!-~]{1,255}",
        issued: u64, expires: u64, lease in 0..=365 * 24 * 60 * 60 * 1000u64,
    ) {
        let [issuer, secondary, client] = seeds.map(Identity::from_seed);
        let ticket = Ticket {
            session: SessionId(session),
            path: PathId(path),
            epoch: Epoch(epoch),
            issuer: issuer.public(),
            secondary: secondary.public(),
            server_name,
            client_key: client.public(),
            issued_at: at(issued),
            expires_at: at(expires),
            lease: Duration::from_millis(lease),
        };
        let bytes = ticket.sign(&issuer);
        prop_assert!(bytes.len() <= TICKET_BYTES_MAX);
        let unverified = Ticket::decode(&bytes);
        prop_assert_eq!(unverified.as_ref().map(UnverifiedTicket::claims), Ok(&ticket));
        let verified = unverified.and_then(UnverifiedTicket::check_signature);
        prop_assert_eq!(verified.as_ref(), Ok(&ticket));
        prop_assert_eq!(verified.map(|ticket| ticket.sign(&issuer)), Ok(bytes));
    }

    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(join_with_fresh_proof(&bytes).is_err());
    }

    // [P-4.3]
    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(
        at in 0..CLAIMS_BYTES, patch in proptest::collection::vec(any::<u8>(), 1..16),
    ) {
        let mut bytes = claims().sign(&primary()).to_vec();
        let end = (at + patch.len()).min(CLAIMS_BYTES);
        bytes[at..end].copy_from_slice(&patch[..end - at]);
        if let Ok(unverified) = Ticket::decode(&bytes) {
            prop_assert_eq!(&unverified.claims().sign(&primary())[..CLAIMS_BYTES], &bytes[..CLAIMS_BYTES]);
        }
    }
}
