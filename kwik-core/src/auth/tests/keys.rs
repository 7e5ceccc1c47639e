//! Which keys are identities, and how identities are shown.

use super::*;

/// The eight points of small order.
const SMALL_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
];

pub(super) fn unhex(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal digits"))
}

/// Every encoding whose y is p or more, and the two points with x = 0 under the other sign.
fn non_canonical() -> Vec<[u8; 32]> {
    let mut all = Vec::new();
    for low in 0xed..=0xff {
        for high in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            all.push(bytes);
        }
    }
    let [one, minus_one, ..] = SMALL_ORDER.map(unhex);
    for mut bytes in [one, minus_one] {
        bytes[31] |= 0x80;
        all.push(bytes);
    }
    all
}

// [P-4.1]
#[test]
fn keys_of_small_order_are_refused() {
    for text in SMALL_ORDER {
        assert_eq!(PublicIdentity::from_bytes(&unhex(text)), Err(IdentityError::SmallOrder), "{text}");
        assert_eq!(text.parse::<PublicIdentity>(), Err(IdentityError::SmallOrder), "{text}");
    }
}

// [P-4.1]
#[test]
fn other_encodings_of_keys_are_refused() {
    let verdicts: Vec<_> = non_canonical().iter().map(PublicIdentity::from_bytes).collect();
    assert_eq!(verdicts.len(), 40);
    for verdict in &verdicts {
        assert!(matches!(verdict, Err(IdentityError::NonCanonical | IdentityError::Undecodable)), "{verdict:?}");
    }
    // Some of them decode, so it is the canonical form that is checked.
    assert!(verdicts.iter().filter(|verdict| **verdict == Err(IdentityError::NonCanonical)).count() >= 20);
    let mut undecodable = [0; 32];
    undecodable[0] = 2;
    assert_eq!(PublicIdentity::from_bytes(&undecodable), Err(IdentityError::Undecodable));
}

// [P-4.1]
#[test]
fn tickets_with_weak_keys_are_refused() {
    let honest = claims();
    let weak = SMALL_ORDER.iter().map(|text| unhex(text)).chain(non_canonical());
    for key in weak {
        for field in [ISSUER, SECONDARY, CLIENT] {
            let mut encoded = honest.sign(&primary())[..CLAIMS_BYTES].to_vec();
            encoded[field].copy_from_slice(&key);
            let signature = primary().sign(Label::Ticket, &[&encoded]);
            encoded.extend_from_slice(&signature);
            assert!(matches!(join_with_fresh_proof(&encoded), Err(AuthError::Key(_))), "{key:02x?}");
        }
    }
}

#[test]
fn identity_has_one_text_form_and_keeps_its_secret() {
    let public = primary().public();
    let text = public.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(text.parse(), Ok(public));
    assert_eq!(text.to_uppercase().parse(), Ok(public));
    let (short, long, sign) = (&text[1..], format!("{text}0"), format!("+{}", &text[1..]));
    for bad in ["", short, &long, &sign, &text.replacen(|_| true, "g", 1), &"é".repeat(32)] {
        assert_eq!(bad.parse::<PublicIdentity>(), Err(IdentityError::NotHex), "{bad}");
    }
    let shown = format!("{:?} {:?}", Identity::from_seed([0xab; 32]), thief());
    assert!(!shown.contains("abab") && !shown.contains("171") && !shown.contains("0404"), "{shown}");
}

#[test]
fn identities_are_drawn_from_the_generator_given() {
    use rand::SeedableRng;
    let draw = |seed| Identity::generate(&mut rand::rngs::StdRng::seed_from_u64(seed)).public();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    // RFC 8032 §7.1, test 1.
    let seed = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(Identity::from_seed(seed).public().to_string(), public);
}

proptest! {
    #[test]
    fn any_key_that_is_accepted_has_one_encoding(key: [u8; 32]) {
        if let Ok(identity) = PublicIdentity::from_bytes(&key) {
            prop_assert_eq!(identity.as_bytes(), &key);
            prop_assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }
}
